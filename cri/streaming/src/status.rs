//! The outcome of a session, as the error stream tells it.

use serde::Serialize;

use crate::api::{StreamError, chain};

/// How a session ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// In good order; a command with exit code 0.
    Success,
    /// The command ended with another exit code.
    Exited(i32),
    /// It could not be served; the text says why.
    Failed(String),
}

impl Outcome {
    pub(crate) fn of_exec(result: Result<i32, StreamError>) -> Self {
        match result {
            Ok(0) => Self::Success,
            Ok(code) => Self::Exited(code),
            Err(error) => Self::Failed(format!("execute command: {}", chain(&error))),
        }
    }

    pub(crate) fn of_attach(result: Result<(), StreamError>) -> Self {
        match result {
            Ok(()) => Self::Success,
            Err(error) => Self::Failed(format!("attach: {}", chain(&error))),
        }
    }

    /// What goes on the error stream: a Kubernetes `Status` since protocol 4, a text on failure
    /// before. Empty when nothing is to be said.
    pub(crate) fn encode(&self, structured: bool) -> Vec<u8> {
        if !structured {
            return self.text().unwrap_or_default().into_bytes();
        }
        // Serializing these types can't fail; an empty error stream would mean success.
        serde_json::to_vec(&self.status()).unwrap_or_else(|_| br#"{"status":"Failure"}"#.to_vec())
    }

    fn text(&self) -> Option<String> {
        match self {
            Self::Success => None,
            Self::Exited(code) => Some(format!(
                "command terminated with non-zero exit code: {code}"
            )),
            Self::Failed(message) => Some(message.clone()),
        }
    }

    fn status(&self) -> Status {
        let failure = |reason, details, code| Status {
            status: "Failure",
            message: self.text(),
            reason: Some(reason),
            details,
            code,
        };
        match self {
            Self::Success => Status {
                status: "Success",
                message: None,
                reason: None,
                details: None,
                code: None,
            },
            Self::Exited(code) => {
                let cause = Cause {
                    reason: "ExitCode",
                    message: code.to_string(),
                };
                failure("NonZeroExitCode", Some(Details { causes: [cause] }), None)
            }
            Self::Failed(_) => failure("InternalError", None, Some(500)),
        }
    }
}

/// The parts of `k8s.io/apimachinery` `metav1.Status` that clients read.
#[derive(Debug, Serialize)]
struct Status {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
}

#[derive(Debug, Serialize)]
struct Details {
    causes: [Cause; 1],
}

#[derive(Debug, Serialize)]
struct Cause {
    reason: &'static str,
    message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(outcome: &Outcome) -> String {
        String::from_utf8(outcome.encode(true)).unwrap()
    }

    #[test]
    fn outcomes_in_both_forms() {
        assert_eq!(json(&Outcome::of_exec(Ok(0))), r#"{"status":"Success"}"#);
        assert_eq!(Outcome::Success.encode(false), b"");
        let exited = Outcome::of_exec(Ok(3));
        assert_eq!(
            json(&exited),
            r#"{"status":"Failure","message":"command terminated with non-zero exit code: 3","#
                .to_owned()
                + r#""reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#
        );
        let failed = Outcome::of_attach(Err(StreamError::ContainerNotRunning { id: "c1".into() }));
        assert_eq!(
            json(&failed),
            r#"{"status":"Failure","message":"attach: container c1 is not running","#.to_owned()
                + r#""reason":"InternalError","code":500}"#
        );
        assert_eq!(failed.encode(false), b"attach: container c1 is not running");
    }
}
