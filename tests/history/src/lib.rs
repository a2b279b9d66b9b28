//! Histories of clients, and whether a linearizable store could have answered so.
//!
//! A history is a list of [`Call`]s: what a client asked, when it asked, when it was answered, and what it was
//! told. On disk it is a file of JSON lines, one call each ([`Call::to_line`]), for this checker or for another:
//!
//! ```text
//! {"process":3,"op":"testset","key":"a","test":"3.1","new":"3.2","invoked":1200,"returned":1950,
//!  "result":"swapped","revision":17}
//! ```
//! `process` is one client that does one thing after another, or several at a time. `invoked` and `returned` are
//! of one clock, in whatever unit; a call whose `returned` is less than another's `invoked` came before it.
//! Without a `returned` the answer is not known.
//!
//! | result | of | says |
//! | --- | --- | --- |
//! | `value` | get | `value` (null: the key holds nothing) and its `revision` |
//! | `set`, `swapped`, `deleted` | set, testset, delete | it was applied, as `revision` |
//! | `not-swapped` | testset | the key held `value` with `revision`, which is not `test` |
//! | `absent` | delete | the key held nothing |
//! | `page` | list | `entries`, the first of those asked for, and whether there are `more` |
//! | `not-applied` | any | it was refused, and never takes effect |
//! | `unknown` | any | it took effect at some time after it was invoked, or never does |
//!
//! # What is checked
//! Two checkers look at each history, and either may refuse it:
//!
//! - [`values`]: key by key, by nothing but the values that were written and read, exactly: there is an order of
//!   the calls in which each does what it says. Pages count as reads of each key that they cover.
//! - [`revisions`]: all keys at once, by the revisions that the answers tell: they are one order of all writes,
//!   that order agrees with real time, and each read or page is what that order shows at one point in its time.
//!
//! Both ask that no value is written to a key by two calls: then whoever reads it knows which call wrote it.

mod call;
pub mod naive;
pub mod revisions;
#[cfg(test)]
mod tests;
pub mod values;

pub use call::{Answer, Call, Entry, Op};

use std::collections::HashMap;

/// Why a history is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It cannot be checked.
    #[error("this history cannot be checked: {0}")]
    Unfit(String),
    /// No linearizable store answers so.
    #[error("not linearizable: {0}")]
    Wrong(String),
}

/// What was checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Calls in the history.
    pub calls: usize,
    /// Calls of which nobody knows what came of them.
    pub unknown: usize,
    /// Keys.
    pub keys: usize,
}

/// Checks a history with both checkers.
///
/// # Errors
/// If it is refused.
pub fn check(history: &[Call]) -> Result<Checked, Refused> {
    unique_values(history)?;
    revisions::check(history)?;
    let keys = values::check(history)?;
    Ok(Checked {
        calls: history.len(),
        unknown: history
            .iter()
            .filter(|call| matches!(call.answer, Answer::Unknown))
            .count(),
        keys,
    })
}

/// No two calls write the same value to the same key.
pub(crate) fn unique_values(history: &[Call]) -> Result<(), Refused> {
    let mut writers: HashMap<(&str, &str), &Call> = HashMap::new();
    for call in history {
        if let Op::Set { key, value } | Op::TestSet { key, value, .. } = &call.op
            && let Some(other) = writers.insert((key, value), call)
        {
            return Err(Refused::Unfit(format!("{other} and {call} write the same")));
        }
    }
    Ok(())
}
