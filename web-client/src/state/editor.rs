//! The editor of one key: what it is based on, what was typed, and how saving and deleting go.
//!
//! Saving is a test-and-set against the value that the editor shows, unless the reader says otherwise:
//! nobody's write is lost without being seen. A test that fails is a [`Stage::Conflict`], and the reader
//! chooses.

use super::keys::{KeysAction, KeysPurpose};
use super::{Effect, Outbox, Purpose};
use crate::text::{self, Tone};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kvservice_shared::api::{ApiError, Op, Outcome, Reply, Value};
use kvservice_shared::ids::Seq;
use kvservice_shared::limits;

/// A value longer than this is shown in part until somebody asks for the whole, in bytes.
pub const SHOWN_BYTES_MAX: usize = 16 * 1024;

/// The editor of one key.
#[derive(Clone, Debug, PartialEq)]
pub struct Editor {
    /// Tells it from the editors before it.
    pub number: u64,
    /// The key; of a new one, as typed so far.
    pub key: String,
    /// What is stored, as far as this editor knows; `None` while it is being read, or of a new key.
    pub base: Option<Found>,
    /// What was typed.
    pub draft: Draft,
    /// Writes only if the key still is as `base` says.
    pub guard: bool,
    /// How far it is.
    pub stage: Stage,
    /// What to tell the reader.
    pub note: Option<Note>,
    /// What somebody else has stored meanwhile, while there is a draft to lose.
    pub elsewhere: Option<Found>,
    new: bool,
    /// The outcome of a write is unknown, and the key is being looked at to find out.
    checking: bool,
}

/// What a key holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its value; `None`: there is no such key.
    pub value: Option<Value>,
    /// Its revision; 0 where there is none.
    pub revision: Seq,
}

/// A value as it is typed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Draft {
    /// As typed.
    pub text: String,
    /// Whether that is base64.
    pub base64: bool,
    /// Whether it differs from what is stored.
    pub dirty: bool,
    /// The value is long, and `text` only its beginning: not to be edited.
    pub cut: bool,
}

/// How far an editor is.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// Shown, and open to changes.
    Editing,
    /// On its way.
    Saving,
    /// The test failed: this is what was found.
    Conflict(Found),
    /// "Delete it?"
    Confirming,
    /// On its way.
    Deleting,
}

/// Something to tell the reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// How it reads.
    pub tone: Tone,
    /// What.
    pub text: String,
    /// Whether looking again would tell more.
    pub look: bool,
}

/// What becomes of the editor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It stays.
    Stay,
    /// It is done.
    Close,
}

impl Editor {
    /// Opens a key, with what the list already knows of it.
    #[must_use]
    pub fn open(number: u64, key: String, known: Option<(Value, Seq)>) -> Editor {
        let mut editor = Editor::create(number, key);
        editor.new = false;
        if let Some((value, revision)) = known {
            editor.rebase(Found {
                value: Some(value),
                revision,
            });
        }
        editor
    }

    /// Begins a new key.
    #[must_use]
    pub fn create(number: u64, key: String) -> Editor {
        Editor {
            number,
            key,
            base: None,
            draft: Draft::default(),
            guard: true,
            stage: Stage::Editing,
            note: None,
            elsewhere: None,
            new: true,
            checking: false,
        }
    }

    /// Whether its key is still to be named.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.new
    }

    /// Whether something is on its way.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        matches!(self.stage, Stage::Saving | Stage::Deleting)
    }

    /// The stored value, if it is known.
    #[must_use]
    pub fn stored(&self) -> Option<&Value> {
        self.base.as_ref()?.value.as_ref()
    }

    /// The value that is typed.
    ///
    /// # Errors
    /// Why it is none, for people.
    pub fn typed(&self) -> Result<Value, String> {
        let value = if self.draft.base64 {
            let packed: String = self.draft.text.split_whitespace().collect();
            let bytes = STANDARD
                .decode(packed)
                .map_err(|e| format!("This is not base64: {e}."))?;
            Value::from(bytes)
        } else {
            Value::from(self.draft.text.as_str())
        };
        if value.0.len() > limits::VALUE_BYTES_MAX {
            return Err(format!(
                "The value is {}: at most {} fit.",
                text::size(value.0.len() as u64),
                text::size(limits::VALUE_BYTES_MAX as u64)
            ));
        }
        Ok(value)
    }

    /// Takes in an action of the reader's.
    pub(super) fn act(&mut self, action: KeysAction, out: &mut Outbox) {
        if self.is_busy() {
            return;
        }
        match action {
            KeysAction::Key(key) if self.new => {
                self.key = key;
                self.note = None;
            }
            KeysAction::Value(text) if !self.draft.cut => {
                self.draft.text = text;
                self.note = None;
                let typed = self.typed().ok();
                self.draft.dirty = self.new || typed.is_none() || typed.as_ref() != self.stored();
            }
            KeysAction::Base64(on) => self.recode(on),
            KeysAction::Whole => self.show(true),
            KeysAction::Guard(on) => self.guard = on,
            KeysAction::Save => self.save(out),
            KeysAction::Overwrite => {
                if let Stage::Conflict(theirs) = &self.stage {
                    // Against theirs: should that change too, the reader is asked again.
                    self.base = Some(theirs.clone());
                    self.new = false;
                    self.stage = Stage::Editing;
                    self.save(out);
                }
            }
            KeysAction::KeepTheirs => {
                if let Stage::Conflict(theirs) = self.stage.clone() {
                    self.new = false;
                    self.stage = Stage::Editing;
                    self.rebase(theirs);
                    out.push(Effect::Focus("[data-focus=editor]"));
                }
            }
            KeysAction::EditOn => {
                if let Stage::Conflict(theirs) = &self.stage {
                    self.base = Some(theirs.clone());
                    self.new = false;
                    self.stage = Stage::Editing;
                    self.elsewhere = None;
                    out.push(Effect::Focus("[data-focus=editor]"));
                }
            }
            KeysAction::Delete if !self.new => {
                self.stage = Stage::Confirming;
                out.push(Effect::Focus("[data-focus=keep]"));
            }
            KeysAction::CancelDelete if self.stage == Stage::Confirming => {
                self.stage = Stage::Editing;
                out.push(Effect::Focus("[data-focus=delete]"));
            }
            KeysAction::ConfirmDelete if self.stage == Stage::Confirming => {
                self.stage = Stage::Deleting;
                let op = Op::Delete {
                    key: self.key.clone(),
                };
                out.submit(Purpose::Keys(KeysPurpose::Delete(self.number)), op);
            }
            KeysAction::Reload => {
                self.note = None;
                if let Some(found) = self.elsewhere.take().or_else(|| self.base.clone()) {
                    self.rebase(found);
                }
            }
            KeysAction::Look => {
                self.checking = true;
                let op = Op::Get {
                    key: self.key.clone(),
                };
                out.submit(Purpose::Keys(KeysPurpose::Look(self.number)), op);
            }
            _ => {}
        }
    }

    /// Takes in what is stored now.
    pub(super) fn looked(&mut self, result: Result<Reply, ApiError>) {
        if self.stage != Stage::Editing {
            return;
        }
        match result {
            Ok(Reply::Get { value, revision }) => {
                let found = Found { value, revision };
                if std::mem::take(&mut self.checking) {
                    self.checked(found);
                } else if self.base.as_ref() == Some(&found) {
                    self.elsewhere = None;
                } else if self.draft.dirty {
                    self.elsewhere = Some(found);
                } else {
                    if found.value.is_none() && self.base.is_some() {
                        self.say(Tone::Bad, "This key was deleted elsewhere.".to_owned());
                    }
                    self.rebase(found);
                }
            }
            Ok(_) => {}
            Err(error) => {
                if self.base.is_none() {
                    self.say(Tone::Bad, text::error(&error, false));
                }
            }
        }
    }

    /// After a write of unknown outcome: this is what the key holds.
    fn checked(&mut self, found: Found) {
        let revision = text::count(found.revision.0);
        let before = self.base.as_ref().map_or(Seq::ZERO, |base| base.revision);
        if found.value.is_some() && found.value == self.typed().ok() {
            self.new = false;
            self.rebase(found);
            self.say(Tone::Good, format!("It is stored, revision {revision}."));
        } else if found.revision == before {
            self.say(
                Tone::Bad,
                "It is not stored so far. Save again, if you like.".to_owned(),
            );
        } else {
            self.note = None;
            self.new = false;
            self.elsewhere = Some(found);
        }
    }

    /// Takes in the answer to a write of `value`.
    pub(super) fn saved(
        &mut self,
        value: Value,
        result: Result<Reply, ApiError>,
        out: &mut Outbox,
    ) {
        self.stage = Stage::Editing;
        match result {
            Ok(
                Reply::Set { revision, .. }
                | Reply::TestSet {
                    swapped: true,
                    revision,
                    ..
                },
            ) => {
                self.new = false;
                self.elsewhere = None;
                self.rebase(Found {
                    value: Some(value),
                    revision,
                });
                self.say(
                    Tone::Good,
                    format!("Saved, revision {}.", text::count(revision.0)),
                );
                out.push(Effect::Focus("[data-focus=editor]"));
            }
            Ok(Reply::TestSet {
                swapped: false,
                value: found,
                revision,
            }) => {
                let theirs = Found {
                    value: found,
                    revision,
                };
                if theirs.value.as_ref() == Some(&value) {
                    // They wrote the very same: there is nothing to choose.
                    self.new = false;
                    self.rebase(theirs);
                    self.say(
                        Tone::Good,
                        "Somebody has stored this very value.".to_owned(),
                    );
                } else {
                    self.note = None;
                    self.stage = Stage::Conflict(theirs);
                    out.push(Effect::Focus("[data-focus=conflict]"));
                }
            }
            Ok(_) => {}
            Err(error) => {
                self.say(Tone::Bad, text::error(&error, true));
                if let Some(note) = &mut self.note {
                    note.look = error.outcome == Outcome::Unknown;
                }
            }
        }
    }

    /// Takes in the answer to a delete.
    pub(super) fn deleted(&mut self, result: Result<Reply, ApiError>, out: &mut Outbox) -> Step {
        self.stage = Stage::Editing;
        match result {
            Ok(_) => {
                out.push(Effect::Focus("[data-focus=prefix]"));
                Step::Close
            }
            Err(error) => {
                self.say(Tone::Bad, text::error(&error, true));
                if let Some(note) = &mut self.note {
                    note.look = error.outcome == Outcome::Unknown;
                }
                Step::Stay
            }
        }
    }

    fn save(&mut self, out: &mut Outbox) {
        if self.draft.cut {
            return;
        }
        if self.key.is_empty() {
            self.say(Tone::Bad, "A key needs a name.".to_owned());
            out.push(Effect::Focus("[data-focus=new-key]"));
            return;
        }
        if self.key.len() > limits::KEY_BYTES_MAX {
            let most = text::count(limits::KEY_BYTES_MAX as u64);
            let is = text::count(self.key.len() as u64);
            self.say(
                Tone::Bad,
                format!("The key is {is} bytes long: at most {most} fit."),
            );
            return;
        }
        let value = match self.typed() {
            Ok(value) => value,
            Err(why) => {
                self.say(Tone::Bad, why);
                return;
            }
        };
        let key = self.key.clone();
        let op = if self.guard {
            Op::TestSet {
                key,
                test: self.stored().cloned(),
                value: value.clone(),
            }
        } else {
            Op::Set {
                key,
                value: value.clone(),
            }
        };
        self.note = None;
        self.stage = Stage::Saving;
        out.submit(
            Purpose::Keys(KeysPurpose::Save {
                editor: self.number,
                value,
            }),
            op,
        );
    }

    /// What is stored is this: show it.
    fn rebase(&mut self, found: Found) {
        let whole = !self.draft.cut && self.draft.text.len() > SHOWN_BYTES_MAX;
        self.base = Some(found);
        self.elsewhere = None;
        self.show(whole);
    }

    fn show(&mut self, whole: bool) {
        let Some(found) = &self.base else { return };
        let (text, base64) = match &found.value {
            None => (String::new(), false),
            Some(value) => match editable(value) {
                Some(text) => (text.to_owned(), false),
                None => (STANDARD.encode(&value.0), true),
            },
        };
        let cut = !whole && text.len() > SHOWN_BYTES_MAX;
        let text = if cut {
            text::head_of(&text, SHOWN_BYTES_MAX).to_owned()
        } else {
            text
        };
        self.draft = Draft {
            text,
            base64,
            dirty: false,
            cut,
        };
    }

    /// Shows what is typed in the other notation, where it has one.
    fn recode(&mut self, base64: bool) {
        if base64 == self.draft.base64 || self.draft.cut {
            return;
        }
        match self.typed() {
            Ok(value) if base64 => self.draft.text = STANDARD.encode(&value.0),
            Ok(value) => match editable(&value) {
                Some(text) => self.draft.text = text.to_owned(),
                None => {
                    self.say(Tone::Bad, "These bytes are no text to be typed.".to_owned());
                    return;
                }
            },
            Err(why) => {
                self.say(Tone::Bad, why);
                return;
            }
        }
        self.note = None;
        self.draft.base64 = base64;
    }

    fn say(&mut self, tone: Tone, text: String) {
        self.note = Some(Note {
            tone,
            text,
            look: false,
        });
    }
}

/// A value as text, if a text box would keep it as it is: one turns carriage returns into line feeds,
/// and shows other control characters not at all.
fn editable(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| {
        !text
            .chars()
            .any(|c| c.is_control() && c != '\n' && c != '\t')
    })
}

#[cfg(test)]
#[path = "editor_tests.rs"]
mod tests;
