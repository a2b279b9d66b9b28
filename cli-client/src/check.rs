//! What a request must hold to before it is sent.

use crate::error::Error;
use kvservice_shared::api::{Op, Value};
use kvservice_shared::limits::{
    BATCH_REQUESTS_MAX, KEY_BYTES_MAX, LIST_ENTRIES_MAX, VALUE_BYTES_MAX,
};

/// Whether a server will take the request, as far as its own limits go.
pub(crate) fn op(op: &Op) -> Result<(), Error> {
    match op {
        Op::Get { key: name } | Op::Delete { key: name } => key(name)?,
        Op::Set {
            key: name,
            value: new,
        } => {
            key(name)?;
            value("value", new)?;
        }
        Op::TestSet {
            key: name,
            test,
            value: new,
        } => {
            key(name)?;
            if let Some(test) = test {
                value("test value", test)?;
            }
            value("value", new)?;
        }
        Op::List {
            prefix,
            after,
            limit,
        } => {
            short("prefix", prefix)?;
            short("key to go on after", after)?;
            if !(1..=LIST_ENTRIES_MAX).contains(limit) {
                return Err(Error::Invalid(format!(
                    "a page of {limit} entries: the limit is 1 to {LIST_ENTRIES_MAX}"
                )));
            }
        }
        Op::Status => {}
        Op::Hello { .. } => {
            return Err(Error::Invalid("the client says hello by itself".to_owned()));
        }
    }
    Ok(())
}

/// Whether a server will take the requests as one batch. The session splits what is too long for a
/// frame.
pub(crate) fn batch(ops: &[Op]) -> Result<(), Error> {
    if !(1..=BATCH_REQUESTS_MAX).contains(&ops.len()) {
        return Err(Error::Invalid(format!(
            "a batch of {}: it holds 1 to {BATCH_REQUESTS_MAX} requests",
            ops.len()
        )));
    }
    ops.iter().try_for_each(op)
}

fn key(key: &str) -> Result<(), Error> {
    if key.is_empty() {
        return Err(Error::Invalid("the key is empty".to_owned()));
    }
    short("key", key)
}

fn short(what: &str, text: &str) -> Result<(), Error> {
    if text.len() > KEY_BYTES_MAX {
        return Err(Error::Invalid(format!(
            "the {what} is {} bytes long: at most {KEY_BYTES_MAX} are allowed",
            text.len()
        )));
    }
    Ok(())
}

fn value(what: &str, value: &Value) -> Result<(), Error> {
    if value.0.len() > VALUE_BYTES_MAX {
        return Err(Error::Invalid(format!(
            "the {what} is {} bytes long: at most {VALUE_BYTES_MAX} are allowed",
            value.0.len()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(result: Result<(), Error>) -> String {
        result.unwrap_err().to_string()
    }

    fn set(key: &str, value: Vec<u8>) -> Op {
        Op::Set {
            key: key.into(),
            value: value.into(),
        }
    }

    #[test]
    fn limits_are_inclusive() {
        let longest = "k".repeat(KEY_BYTES_MAX);
        assert_eq!(op(&set(&longest, vec![b'v'; VALUE_BYTES_MAX])), Ok(()));
        assert_eq!(
            op(&Op::List {
                prefix: longest.clone(),
                after: longest,
                limit: 1000
            }),
            Ok(())
        );
    }

    #[test]
    fn names_what_is_over_its_limit() {
        let too_long = "k".repeat(KEY_BYTES_MAX + 1);
        assert_eq!(
            message(op(&Op::Get { key: String::new() })),
            "the key is empty"
        );
        assert_eq!(
            message(op(&Op::Delete {
                key: too_long.clone()
            })),
            "the key is 1025 bytes long: at most 1024 are allowed"
        );
        assert_eq!(
            message(op(&set("k", vec![0; VALUE_BYTES_MAX + 1]))),
            "the value is 1048577 bytes long: at most 1048576 are allowed"
        );
        let list = Op::List {
            prefix: too_long,
            after: String::new(),
            limit: 1,
        };
        assert!(message(op(&list)).starts_with("the prefix is 1025"));
        let list = Op::List {
            prefix: String::new(),
            after: String::new(),
            limit: 0,
        };
        assert!(message(op(&list)).starts_with("a page of 0 entries"));
    }

    #[test]
    fn a_batch_has_its_own_limit() {
        assert!(message(batch(&[])).starts_with("a batch of 0"));
        assert!(message(batch(&vec![Op::Status; 1025])).starts_with("a batch of 1025"));
        assert_eq!(batch(&vec![Op::Status; 1024]), Ok(()));
        assert_eq!(
            message(batch(&[Op::Status, set("", vec![])])),
            "the key is empty"
        );
    }
}
