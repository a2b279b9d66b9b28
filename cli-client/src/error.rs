//! Why a request failed.

use kvservice_shared::api::{ApiError, Outcome};

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server answered with an error, or no answer came in time. [`ApiError::outcome`] says
    /// whether the request may have been applied: over all attempts that the client made, not only
    /// the last.
    #[error("{}", describe(.0))]
    Api(ApiError),
    /// The request breaks a limit or a rule of the protocol; nothing was sent.
    #[error("{0}")]
    Invalid(String),
    /// There is no connection; the reason is for people. Nothing was applied.
    #[error("{0}")]
    Connect(String),
    /// The client is closed. A write that was under way has an unknown outcome.
    #[error("the client is closed")]
    Closed,
}

impl Error {
    /// Whether the request may have been applied all the same: only then is it wrong to send it
    /// again as a new request.
    #[must_use]
    pub fn outcome_unknown(&self) -> bool {
        match self {
            Error::Api(error) => error.outcome == Outcome::Unknown,
            Error::Invalid(_) | Error::Connect(_) => false,
            Error::Closed => true,
        }
    }
}

impl From<ApiError> for Error {
    fn from(error: ApiError) -> Error {
        Error::Api(error)
    }
}

fn describe(error: &ApiError) -> String {
    let outcome = match error.outcome {
        Outcome::NotApplied => "",
        Outcome::Unknown => " (outcome unknown)",
    };
    format!("{}: {}{outcome}", error.code, error.message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvservice_shared::api::ErrorCode;

    #[test]
    fn says_the_code_the_reason_and_an_unknown_outcome() {
        let error = Error::from(ApiError {
            code: ErrorCode::Timeout,
            message: "no answer within 5 s".into(),
            outcome: Outcome::Unknown,
        });
        assert_eq!(
            error.to_string(),
            "timeout: no answer within 5 s (outcome unknown)"
        );
        assert!(error.outcome_unknown());
        assert!(!Error::Invalid("the key is empty".into()).outcome_unknown());
    }
}
