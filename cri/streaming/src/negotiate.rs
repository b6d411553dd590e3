//! The HTTP side of a session: which transport and protocol a client's upgrade request gets.

use http::header::{CONNECTION, HeaderName, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT};
use http::header::{SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use crate::websocket::{self, Codec};

const SPDY: &str = "SPDY/3.1";
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED_PROTOCOLS: HeaderName =
    HeaderName::from_static("x-accepted-stream-protocol-versions");

/// The version of exec's and attach's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    V1,
    V2,
    /// Adds resizing.
    V3,
    /// Adds structured outcomes.
    V4,
    /// Adds the close signal (WebSocket only).
    V5,
}

/// Over what streams run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Spdy,
    WebSocket(Codec),
}

/// What was agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Agreed<T> {
    pub(crate) transport: Transport,
    pub(crate) protocol: T,
}

/// A request that is answered with an error.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) status: StatusCode,
    pub(crate) text: String,
    accepted: Vec<&'static str>,
}

impl Refused {
    pub(crate) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self {
            status,
            text: text.into(),
            accepted: Vec::new(),
        }
    }

    /// Fills in the answer's head; its body is the text.
    pub(crate) fn apply<B>(&self, response: &mut Response<B>) {
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        for protocol in &self.accepted {
            headers.append(ACCEPTED_PROTOCOLS, HeaderValue::from_static(protocol));
        }
        match self.status {
            StatusCode::UPGRADE_REQUIRED => {
                headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
    }
}

type Choice<T> = (&'static str, T);

const REMOTE_SPDY: [Choice<Version>; 4] = [
    ("v4.channel.k8s.io", Version::V4),
    ("v3.channel.k8s.io", Version::V3),
    ("v2.channel.k8s.io", Version::V2),
    ("channel.k8s.io", Version::V1),
];
const BINARY: Codec = Codec::Binary {
    close_signals: false,
};
const REMOTE_WEBSOCKET: [Choice<(Codec, Version)>; 7] = [
    (
        "v5.channel.k8s.io",
        (
            Codec::Binary {
                close_signals: true,
            },
            Version::V5,
        ),
    ),
    ("v4.channel.k8s.io", (BINARY, Version::V4)),
    ("v4.base64.channel.k8s.io", (Codec::Base64, Version::V4)),
    ("v3.channel.k8s.io", (BINARY, Version::V3)),
    ("v2.channel.k8s.io", (BINARY, Version::V2)),
    ("channel.k8s.io", (BINARY, Version::V1)),
    ("base64.channel.k8s.io", (Codec::Base64, Version::V1)),
];
const FORWARD_SPDY: [Choice<()>; 1] = [("portforward.k8s.io", ())];
const FORWARD_WEBSOCKET: [Choice<(Codec, ())>; 3] = [
    ("SPDY/3.1+portforward.k8s.io", (Codec::Tunnel, ())),
    ("v4.channel.k8s.io", (BINARY, ())),
    ("v4.base64.channel.k8s.io", (Codec::Base64, ())),
];

/// Agrees on a protocol for exec or attach, and fills in the answer.
pub(crate) fn remote<B>(
    request: &HeaderMap,
    response: &mut Response<B>,
) -> Result<Agreed<Version>, Refused> {
    agree(
        request,
        response,
        &REMOTE_SPDY,
        &REMOTE_WEBSOCKET,
        Version::V1,
    )
}

/// Agrees on a protocol for port-forward, and fills in the answer.
pub(crate) fn forward<B>(
    request: &HeaderMap,
    response: &mut Response<B>,
) -> Result<Agreed<()>, Refused> {
    agree(request, response, &FORWARD_SPDY, &FORWARD_WEBSOCKET, ())
}

fn agree<T: Copy, B>(
    request: &HeaderMap,
    response: &mut Response<B>,
    spdy: &[Choice<T>],
    websocket: &[Choice<(Codec, T)>],
    unnamed: T,
) -> Result<Agreed<T>, Refused> {
    let upgrade = tokens(request, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"));
    let asked = |protocol: &str| {
        upgrade && tokens(request, &UPGRADE).any(|token| token.eq_ignore_ascii_case(protocol))
    };
    let agreed = if asked(SPDY) {
        let chosen = choose(request, &STREAM_PROTOCOL, spdy)?;
        answer(
            response,
            SPDY,
            &STREAM_PROTOCOL,
            chosen.map(|(name, _)| name),
        );
        // Clients from before the header mean the first version.
        Agreed {
            transport: Transport::Spdy,
            protocol: chosen.map_or(unnamed, |(_, choice)| choice),
        }
    } else if asked("websocket") {
        let chosen = choose(request, &SEC_WEBSOCKET_PROTOCOL, websocket)?;
        accept_websocket(request, response)?;
        answer(
            response,
            "websocket",
            &SEC_WEBSOCKET_PROTOCOL,
            chosen.map(|(name, _)| name),
        );
        let (codec, protocol) = chosen.map_or((BINARY, unnamed), |(_, choice)| choice);
        Agreed {
            transport: Transport::WebSocket(codec),
            protocol,
        }
    } else {
        let text = "unable to upgrade: neither SPDY/3.1 nor WebSocket was asked for";
        return Err(Refused::new(StatusCode::BAD_REQUEST, text));
    };
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    Ok(agreed)
}

/// The first protocol of the client's that is known; `None` when it names none at all.
fn choose<T: Copy>(
    request: &HeaderMap,
    header: &HeaderName,
    known: &[Choice<T>],
) -> Result<Option<Choice<T>>, Refused> {
    if !request.contains_key(header) {
        return Ok(None);
    }
    tokens(request, header)
        .find_map(|name| known.iter().find(|(known, _)| *known == name).copied())
        .map(Some)
        .ok_or_else(|| {
            let accepted: Vec<_> = known.iter().map(|(name, _)| *name).collect();
            let asked: Vec<_> = tokens(request, header).collect();
            let (asked, offered) = (asked.join(", "), accepted.join(", "));
            let text =
                format!("unable to upgrade: client supports [{asked}], server accepts [{offered}]");
            Refused {
                status: StatusCode::FORBIDDEN,
                text,
                accepted,
            }
        })
}

fn accept_websocket<B>(request: &HeaderMap, response: &mut Response<B>) -> Result<(), Refused> {
    if request
        .get(SEC_WEBSOCKET_VERSION)
        .is_none_or(|version| version != "13")
    {
        let text = "unable to upgrade: WebSocket version 13 is required";
        return Err(Refused::new(StatusCode::UPGRADE_REQUIRED, text));
    }
    let accept = request
        .get(SEC_WEBSOCKET_KEY)
        .and_then(|key| HeaderValue::from_str(&websocket::accept(key.as_bytes())).ok())
        .ok_or_else(|| {
            let text = "unable to upgrade: no Sec-WebSocket-Key";
            Refused::new(StatusCode::BAD_REQUEST, text)
        })?;
    response.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
    Ok(())
}

fn answer<B>(
    response: &mut Response<B>,
    upgrade: &'static str,
    header: &HeaderName,
    protocol: Option<&'static str>,
) {
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(upgrade));
    if let Some(protocol) = protocol {
        headers.insert(header.clone(), HeaderValue::from_static(protocol));
    }
}

/// The comma-separated parts of all headers of a name.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&'static str, &'static str)]) -> HeaderMap {
        headers
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn the_clients_first_known_protocol_wins() {
        let headers = request(&[
            ("connection", "Upgrade"),
            ("upgrade", "SPDY/3.1"),
            (
                "x-stream-protocol-version",
                "v5.channel.k8s.io, v3.channel.k8s.io",
            ),
        ]);
        let mut headers_twice = headers.clone();
        headers_twice.append(
            STREAM_PROTOCOL,
            HeaderValue::from_static("v4.channel.k8s.io"),
        );
        let mut response = Response::new(());
        let agreed = remote(&headers_twice, &mut response).unwrap();
        assert_eq!(
            agreed,
            Agreed {
                transport: Transport::Spdy,
                protocol: Version::V3
            }
        );
        assert_eq!(response.status(), 101);
        assert_eq!(
            response.headers()["x-stream-protocol-version"],
            "v3.channel.k8s.io"
        );
        assert_eq!(response.headers()["upgrade"], "SPDY/3.1");
    }

    #[test]
    fn the_rfcs_websocket_handshake() {
        let headers = request(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-protocol", "chat, v5.channel.k8s.io"),
        ]);
        let mut response = Response::new(());
        let agreed = remote(&headers, &mut response).unwrap();
        let codec = Codec::Binary {
            close_signals: true,
        };
        assert_eq!(agreed.transport, Transport::WebSocket(codec));
        assert_eq!(
            response.headers()["sec-websocket-accept"],
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
        assert_eq!(
            response.headers()["sec-websocket-protocol"],
            "v5.channel.k8s.io"
        );
    }

    #[test]
    fn unknown_protocols_are_refused_with_the_list() {
        let headers = request(&[
            ("connection", "Upgrade"),
            ("upgrade", "spdy/3.1"),
            ("x-stream-protocol-version", "v9.channel.k8s.io"),
        ]);
        let mut response = Response::new(());
        let refused = remote(&headers, &mut response).unwrap_err();
        refused.apply(&mut response);
        assert_eq!(response.status(), 403);
        let accepted: Vec<_> = response
            .headers()
            .get_all(ACCEPTED_PROTOCOLS)
            .iter()
            .collect();
        assert_eq!(accepted.len(), 4);
        assert_eq!(accepted[0], "v4.channel.k8s.io");
    }

    #[test]
    fn requests_without_an_upgrade_or_version() {
        let plain = request(&[("upgrade", "SPDY/3.1")]);
        assert_eq!(
            remote(&plain, &mut Response::new(())).unwrap_err().status,
            400
        );
        let old = request(&[("connection", "upgrade"), ("upgrade", "websocket")]);
        assert_eq!(
            forward(&old, &mut Response::new(())).unwrap_err().status,
            426
        );
        let unnamed = request(&[("connection", "upgrade"), ("upgrade", "SPDY/3.1")]);
        let agreed = remote(&unnamed, &mut Response::new(())).unwrap();
        assert_eq!(agreed.protocol, Version::V1);
    }
}
