//! The signals that joey gets during a session.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::CliError;

/// What the container gets of what joey gets.
pub const FORWARDED: &[SignalKind] = &[
    SignalKind::hangup(),
    SignalKind::interrupt(),
    SignalKind::quit(),
    SignalKind::terminate(),
    SignalKind::user_defined1(),
    SignalKind::user_defined2(),
];
/// What would end joey without giving its terminal back.
pub const ENDING: &[SignalKind] = &[
    SignalKind::hangup(),
    SignalKind::interrupt(),
    SignalKind::quit(),
    SignalKind::terminate(),
];

/// What a signal means.
#[derive(Debug, Clone, Copy)]
pub enum Event {
    /// The terminal has another size.
    Resized,
    /// One of those that were asked for, by its number.
    Got(u32),
}

/// The signals that are listened to.
#[derive(Debug)]
pub struct Signals {
    resized: Option<Signal>,
    others: Vec<(u32, Signal)>,
}

impl Signals {
    /// Listens from now on, to sizes of a terminal and to `others`.
    ///
    /// # Errors
    /// When a signal can't be listened to.
    pub fn listen(sizes: bool, others: &[SignalKind]) -> Result<Self, CliError> {
        let listen = |kind| signal(kind).map_err(|error| CliError::Io("listen to signals", error));
        let with_number =
            |kind: &SignalKind| Ok((kind.as_raw_value().unsigned_abs(), listen(*kind)?));
        Ok(Self {
            resized: sizes
                .then(|| listen(SignalKind::window_change()))
                .transpose()?,
            others: others
                .iter()
                .map(with_number)
                .collect::<Result<_, CliError>>()?,
        })
    }

    /// Waits for the next one. Safe to cancel.
    pub async fn next(&mut self) -> Event {
        let resized = async {
            match &mut self.resized {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        let waiting = self.others.iter_mut().map(|(number, signal)| {
            let number = *number;
            Box::pin(async move {
                signal.recv().await;
                number
            })
        });
        let waiting: Vec<_> = waiting.collect();
        let other = async {
            match waiting.is_empty() {
                true => std::future::pending().await,
                false => futures::future::select_all(waiting).await.0,
            }
        };
        tokio::select! {
            _ = resized => Event::Resized,
            number = other => Event::Got(number),
        }
    }
}
