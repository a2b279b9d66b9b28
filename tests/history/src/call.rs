//! One call of a client, and its line in a file.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What a client asked, when, and what it was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Which client.
    pub process: u64,
    /// What it asked.
    #[serde(flatten)]
    pub op: Op,
    /// When it asked.
    pub invoked: u64,
    /// When it was answered, if it was.
    pub returned: Option<u64>,
    /// What it was told.
    #[serde(flatten)]
    pub answer: Answer,
}

/// What a client may ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Op {
    /// Read a key.
    Get {
        /// The key.
        key: String,
    },
    /// Write a key.
    Set {
        /// The key.
        key: String,
        /// The new value.
        value: String,
    },
    /// Write a key if it holds what is expected.
    TestSet {
        /// The key.
        key: String,
        /// What is expected; `None`: nothing.
        test: Option<String>,
        /// The new value.
        #[serde(rename = "new")]
        value: String,
    },
    /// Remove a key.
    Delete {
        /// The key.
        key: String,
    },
    /// Read keys in order of their bytes.
    List {
        /// They begin with this.
        prefix: String,
        /// They come after this.
        after: String,
        /// So many at most.
        limit: usize,
    },
}

/// What a client may be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum Answer {
    /// The key holds this.
    Value {
        /// `None`: nothing.
        value: Option<String>,
        /// Of the write that wrote it; 0 where there is none.
        revision: u64,
    },
    /// The key was written.
    Set {
        /// As this.
        revision: u64,
    },
    /// The key held what was expected, and was written.
    Swapped {
        /// As this.
        revision: u64,
    },
    /// The key held something else.
    NotSwapped {
        /// This.
        value: Option<String>,
        /// Of the write that wrote it; 0 where there is none.
        revision: u64,
    },
    /// The key held something, and was removed.
    Deleted {
        /// As this.
        revision: u64,
    },
    /// There was nothing to delete.
    Absent,
    /// The keys asked for.
    Page {
        /// In order.
        entries: Vec<Entry>,
        /// There are more.
        more: bool,
    },
    /// It did not happen, and never does.
    NotApplied,
    /// It happened after it was asked, or happens yet, or never.
    Unknown,
}

/// A key of a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// What it holds.
    pub value: String,
    /// Of the write that wrote it.
    pub revision: u64,
}

impl Call {
    /// Its line, without the line's end.
    #[must_use]
    pub fn to_line(&self) -> String {
        serde_json::to_string(self).expect("calls have no part that JSON cannot say")
    }

    /// Reads a line.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_line(line: &str) -> Result<Call, serde_json::Error> {
        serde_json::from_str(line)
    }

    /// It returned before the other began.
    pub(crate) fn precedes(&self, other: &Call) -> bool {
        self.returned
            .is_some_and(|returned| returned < other.invoked)
    }
}

impl Op {
    /// Whether a key is among those that a list asks for.
    pub(crate) fn covers(prefix: &str, after: &str, key: &str) -> bool {
        key.starts_with(prefix) && (after.is_empty() || key > after)
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_line())
    }
}
