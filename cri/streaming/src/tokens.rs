//! Sessions that were asked for and wait for their client: one random token each, used once,
//! within a minute.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use rand::RngCore as _;
use tokio::time::Instant;

use crate::api::{AttachRequest, ExecRequest};

/// Random bytes of a token: unguessable for whoever can reach the listener.
const TOKEN_BYTES: usize = 16;

/// What a client may come for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Exec(ExecRequest),
    Attach(AttachRequest),
    PortForward { pod_id: String, ports: Vec<u16> },
}

impl Request {
    /// The first part of its path.
    pub(crate) fn method(&self) -> &'static str {
        match self {
            Self::Exec(_) => "exec",
            Self::Attach(_) => "attach",
            Self::PortForward { .. } => "portforward",
        }
    }
}

#[derive(Debug)]
struct State {
    pending: HashMap<String, (Instant, Request)>,
    /// Tokens by age; used ones are cleared out now and then.
    order: VecDeque<(Instant, String)>,
}

/// The pending requests.
#[derive(Debug)]
pub(crate) struct Tokens {
    state: Mutex<State>,
    lifetime: Duration,
    limit: usize,
}

impl Tokens {
    pub(crate) fn new(lifetime: Duration, limit: usize) -> Self {
        let state = State {
            pending: HashMap::new(),
            order: VecDeque::new(),
        };
        Self {
            state: Mutex::new(state),
            lifetime,
            limit,
        }
    }

    /// Keeps a request and gives its token; `None` when too many are pending.
    pub(crate) fn insert(&self, request: Request) -> Option<String> {
        let mut state = self.state.lock();
        let now = Instant::now();
        while let Some((expiry, token)) = state.order.front() {
            // Used tokens go as well, so that the list stays as short as the map.
            if *expiry > now && state.pending.contains_key(token) {
                break;
            }
            if let Some((_, token)) = state.order.pop_front() {
                state.pending.remove(&token);
            }
        }
        if state.pending.len() >= self.limit {
            return None;
        }
        if state.order.len() >= self.limit.saturating_mul(2) {
            let State { pending, order } = &mut *state;
            order.retain(|(_, token)| pending.contains_key(token));
        }
        let mut random = [0; TOKEN_BYTES];
        rand::rng().fill_bytes(&mut random);
        let token = URL_SAFE_NO_PAD.encode(random);
        let expiry = now + self.lifetime;
        state.order.push_back((expiry, token.clone()));
        state.pending.insert(token.clone(), (expiry, request));
        Some(token)
    }

    /// Whether a token is good for a method, without using it.
    pub(crate) fn allows(&self, token: &str, method: &str) -> bool {
        let state = self.state.lock();
        state
            .pending
            .get(token)
            .is_some_and(|(expiry, request)| *expiry > Instant::now() && request.method() == method)
    }

    /// Uses a token up.
    pub(crate) fn take(&self, token: &str) -> Option<Request> {
        let mut state = self.state.lock();
        let (expiry, request) = state.pending.remove(token)?;
        (expiry > Instant::now()).then_some(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward(pod: &str) -> Request {
        Request::PortForward {
            pod_id: pod.into(),
            ports: vec![],
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_good_once_and_for_its_method_and_time() {
        let tokens = Tokens::new(Duration::from_secs(60), 10);
        let token = tokens.insert(forward("a")).unwrap();
        assert!(tokens.allows(&token, "portforward"));
        assert!(!tokens.allows(&token, "exec"));
        assert_eq!(tokens.take(&token), Some(forward("a")));
        assert_eq!(tokens.take(&token), None);
        let late = tokens.insert(forward("b")).unwrap();
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(!tokens.allows(&late, "portforward"));
        assert_eq!(tokens.take(&late), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_pending_requests_is_bounded_until_they_expire() {
        let tokens = Tokens::new(Duration::from_secs(60), 3);
        let first = tokens.insert(forward("0")).unwrap();
        for _ in 0..100 {
            let token = tokens.insert(forward("x")).unwrap();
            tokens.take(&token).unwrap();
        }
        assert!(tokens.state.lock().order.len() <= 6);
        tokens.insert(forward("1")).unwrap();
        tokens.insert(forward("2")).unwrap();
        assert_eq!(tokens.insert(forward("3")), None);
        assert!(tokens.allows(&first, "portforward"));
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(tokens.insert(forward("4")).is_some());
        assert_eq!(tokens.state.lock().pending.len(), 1);
    }
}
