//! The keys pane: one page of the list at a time, and the editor of one key (`editor`).
//!
//! The page follows what others write: whenever `status` shows that something was committed it is read
//! again, but never twice at a time, and no sooner than [`REFRESH_MS`] after the last time, or ten times as
//! long as that took.

use super::{Effect, Outbox, Purpose};
use crate::state::editor::{Draft, Editor, Step};
use kvservice_shared::api::{ApiError, ListEntry, Op, Reply, Value};
use std::rc::Rc;

/// Keys on a page.
pub const PAGE_ENTRIES: u32 = 100;
/// The page is read again no sooner than this, in milliseconds.
pub const REFRESH_MS: u64 = 1_000;

/// The keys pane.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Keys {
    /// As typed.
    pub prefix: String,
    /// The page, once it was read.
    pub page: Option<Page>,
    /// Why the last reading failed.
    pub error: Option<ApiError>,
    /// What is being looked at or changed.
    pub editor: Option<Editor>,
    /// The `after` of each page up to this one: the way back. Empty on the first page.
    trail: Vec<String>,
    /// The page that is being read.
    reading: Option<Reading>,
    /// When the page is to be read again.
    due_ms: Option<u64>,
    /// No sooner than this, unless `urgent`.
    not_before_ms: u64,
    /// The reader waits for it.
    urgent: bool,
    /// Counts editors, so that an answer finds the one it is for.
    editors: u64,
}

/// One page of keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// What its keys start with.
    pub prefix: String,
    /// Its number, from 1.
    pub number: usize,
    /// The keys.
    pub entries: Rc<Vec<ListEntry>>,
    /// Whether there are more behind it.
    pub more: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct Reading {
    prefix: String,
    trail: Vec<String>,
    since_ms: u64,
}

/// What the reader can do here.
#[derive(Clone, Debug, PartialEq)]
pub enum KeysAction {
    /// Typed a prefix.
    Prefix(String),
    /// Went to the next page.
    Next,
    /// Went back a page.
    Previous,
    /// Opened a key.
    Open(String),
    /// Began a new key.
    New,
    /// Closed the editor.
    CloseEditor,
    /// Typed a new key's name.
    Key(String),
    /// Typed a value.
    Value(String),
    /// Chose whether the value is typed as base64.
    Base64(bool),
    /// Asked to edit a large value whole.
    Whole,
    /// Chose whether to write only if the key is as it was shown.
    Guard(bool),
    /// Saved.
    Save,
    /// Of a conflict: keeps theirs.
    KeepTheirs,
    /// Of a conflict: writes mine over theirs.
    Overwrite,
    /// Of a conflict: goes on editing mine, knowing theirs.
    EditOn,
    /// Asked to delete; is asked back.
    Delete,
    /// Confirmed it.
    ConfirmDelete,
    /// Thought better of it.
    CancelDelete,
    /// Takes what is stored now, and drops what was typed.
    Reload,
    /// After a write of unknown outcome: looks whether it was applied.
    Look,
}

/// What a request of this pane was for.
#[derive(Clone, Debug, PartialEq)]
pub enum KeysPurpose {
    /// A page.
    Page,
    /// The editor of this number reads its key.
    Look(u64),
    /// The editor of this number wrote this value.
    Save {
        /// The editor's number.
        editor: u64,
        /// What it wrote.
        value: Value,
    },
    /// The editor of this number deletes its key.
    Delete(u64),
}

impl Keys {
    /// The page is out of date: read it as soon as may be.
    pub fn refresh(&mut self, now_ms: u64) {
        self.due_ms = Some(now_ms);
        self.urgent = true;
    }

    /// Something was written: read the page again before long.
    pub fn written(&mut self, now_ms: u64) {
        self.due_ms.get_or_insert(now_ms);
    }

    /// When [`Keys::fetch`] is due.
    #[must_use]
    pub fn next_wake_ms(&self) -> Option<u64> {
        let due = self.due_ms.filter(|_| self.reading.is_none())?;
        Some(if self.urgent {
            due
        } else {
            due.max(self.not_before_ms)
        })
    }

    /// Whether the first page is still to come.
    #[must_use]
    pub fn is_loading(&self) -> bool {
        self.page
            .as_ref()
            .is_none_or(|page| page.prefix != self.prefix)
            && self.error.is_none()
    }

    /// Whether there is a page before this one.
    #[must_use]
    pub fn has_previous(&self) -> bool {
        !self.trail.is_empty()
    }

    /// Reads the page, and the key in the editor.
    pub fn fetch(&mut self, now_ms: u64, out: &mut Outbox) {
        self.due_ms = None;
        self.urgent = false;
        if self.reading.is_some() {
            return;
        }
        let after = self.trail.last().cloned().unwrap_or_default();
        self.reading = Some(Reading {
            prefix: self.prefix.clone(),
            trail: self.trail.clone(),
            since_ms: now_ms,
        });
        let op = Op::List {
            prefix: self.prefix.clone(),
            after,
            limit: PAGE_ENTRIES,
        };
        out.submit(Purpose::Keys(KeysPurpose::Page), op);
        self.look(out);
    }

    /// Takes in an action of the reader's.
    pub fn act(&mut self, action: KeysAction, now_ms: u64, out: &mut Outbox) {
        match action {
            KeysAction::Prefix(prefix) => {
                self.prefix = prefix;
                self.trail.clear();
                self.refresh(now_ms);
            }
            KeysAction::Next => {
                if let Some(last) = self.page.as_ref().and_then(|page| page.entries.last()) {
                    self.trail.push(last.key.clone());
                    self.refresh(now_ms);
                }
            }
            KeysAction::Previous => {
                self.trail.pop();
                self.refresh(now_ms);
            }
            KeysAction::Open(key) => {
                self.editors += 1;
                let known = self
                    .entry(&key)
                    .map(|entry| (entry.value.clone(), entry.revision));
                self.editor = Some(Editor::open(self.editors, key, known));
                self.look(out);
                out.push(Effect::Focus("[data-focus=editor]"));
            }
            KeysAction::New => {
                self.editors += 1;
                // Whoever looked at "user:" wants a new key there.
                self.editor = Some(Editor::create(self.editors, self.prefix.clone()));
                out.push(Effect::Focus("[data-focus=new-key]"));
            }
            KeysAction::CloseEditor => {
                self.editor = None;
                out.push(Effect::Focus("[data-focus=prefix]"));
            }
            action => {
                let Some(editor) = &mut self.editor else {
                    return;
                };
                editor.act(action, out);
            }
        }
    }

    /// Takes in the answer to a request.
    pub fn answered(
        &mut self,
        purpose: KeysPurpose,
        result: Result<Reply, ApiError>,
        now_ms: u64,
        out: &mut Outbox,
    ) {
        match purpose {
            KeysPurpose::Page => self.read(result, now_ms),
            KeysPurpose::Look(number) => {
                if let Some(editor) = self.editor_numbered(number) {
                    editor.looked(result);
                }
            }
            KeysPurpose::Save {
                editor: number,
                value,
            } => {
                self.refresh(now_ms);
                if let Some(editor) = self.editor_numbered(number) {
                    editor.saved(value, result, out);
                }
            }
            KeysPurpose::Delete(number) => {
                self.refresh(now_ms);
                if let Some(editor) = self.editor_numbered(number)
                    && editor.deleted(result, out) == Step::Close
                {
                    self.editor = None;
                }
            }
        }
    }

    fn read(&mut self, result: Result<Reply, ApiError>, now_ms: u64) {
        let Some(reading) = self.reading.take() else {
            return;
        };
        let took = now_ms.saturating_sub(reading.since_ms);
        self.not_before_ms = now_ms + REFRESH_MS.max(took * 10);
        let wanted = reading.prefix == self.prefix && reading.trail == self.trail;
        match result {
            Ok(Reply::List { entries, more }) if wanted => {
                self.error = None;
                if entries.is_empty() && self.trail.pop().is_some() {
                    // The last page has gone empty: the one before is the last now.
                    self.refresh(now_ms);
                    return;
                }
                // An unchanged page keeps its allocation, and is not drawn again.
                let entries = match &self.page {
                    Some(page) if *page.entries == entries => page.entries.clone(),
                    _ => Rc::new(entries),
                };
                let number = self.trail.len() + 1;
                self.page = Some(Page {
                    prefix: reading.prefix,
                    number,
                    entries,
                    more,
                });
            }
            Ok(Reply::List { .. }) => self.refresh(now_ms),
            Ok(_) => {}
            Err(error) => {
                self.error = Some(error);
                self.due_ms = Some(now_ms);
            }
        }
    }

    fn look(&mut self, out: &mut Outbox) {
        if let Some(editor) = self.editor.as_ref().filter(|editor| !editor.is_new()) {
            let op = Op::Get {
                key: editor.key.clone(),
            };
            out.submit(Purpose::Keys(KeysPurpose::Look(editor.number)), op);
        }
    }

    fn entry(&self, key: &str) -> Option<&ListEntry> {
        self.page
            .as_ref()?
            .entries
            .iter()
            .find(|entry| entry.key == key)
    }

    fn editor_numbered(&mut self, number: u64) -> Option<&mut Editor> {
        self.editor
            .as_mut()
            .filter(|editor| editor.number == number)
    }
}

/// Whether the page shows nothing, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emptiness {
    /// There are keys to show, or the page is still to come.
    Not,
    /// The store has no keys.
    NoKeys,
    /// The store has none that start so.
    NoHits,
}

impl Keys {
    /// Whether the page shows nothing, and why.
    #[must_use]
    pub fn emptiness(&self) -> Emptiness {
        match &self.page {
            Some(page) if page.entries.is_empty() && page.prefix == self.prefix => {
                if self.prefix.is_empty() {
                    Emptiness::NoKeys
                } else {
                    Emptiness::NoHits
                }
            }
            _ => Emptiness::Not,
        }
    }

    /// What is typed in the editor, if anything is open.
    #[must_use]
    pub fn draft(&self) -> Option<&Draft> {
        self.editor.as_ref().map(|editor| &editor.draft)
    }
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
