//! Whether the session that a server holds is still the one in which writes went out.

/// What a client knows of its session on the server, from the answers to its `hello`s.
///
/// Only where two answers in a row are of the same session may a write that went out after the
/// first be sent again after the second: in another one of the same name it would be applied twice.
/// `"opened"` names the `hello` that opened the session, which tells them apart. Without it (a
/// server that does not say) there is `"resumed"`, and that counts only if no answer to a `hello`
/// was lost in between: the lost one may be what opened the session that is "resumed".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldSession {
    opened: Option<Box<str>>,
    /// A `hello` was sent, and what came of it is not known.
    in_doubt: bool,
}

impl HeldSession {
    /// The answer to a `hello` was lost, or says that nobody knows.
    pub fn answer_lost(&mut self) {
        self.in_doubt = true;
    }

    /// A `hello` was answered, with `resumed` and `opened` of [`Reply::Hello`](crate::api::Reply::Hello). `true`: the session
    /// is the one of the answer before this.
    pub fn answered(&mut self, resumed: bool, opened: Option<Box<str>>) -> bool {
        let same = match (&self.opened, &opened) {
            (Some(before), Some(now)) => before == now,
            _ => resumed && !self.in_doubt,
        };
        *self = HeldSession {
            opened,
            in_doubt: false,
        };
        same
    }
}
