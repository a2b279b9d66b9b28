//! Bugs that a test can switch on, to see that the simulator finds them.
//!
//! Without the feature `canaries`, which nothing that ships has, [`is_on`] is `false` at compile time.

macro_rules! canaries {
    ($($(#[doc = $text:literal])+ $name:ident)*) => {
        /// A bug that somebody could write.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Canary {
            $($(#[doc = $text])+ $name,)*
        }

        impl Canary {
            /// Every one.
            pub const ALL: &[Canary] = &[$(Canary::$name),*];

            /// What it does wrong, in words.
            #[must_use]
            pub fn about(self) -> &'static str {
                match self {
                    $(Canary::$name => concat!($($text),+).trim_ascii(),)*
                }
            }
        }
    };
}

canaries! {
    /// A restarted process is taken for the member that it was.
    BootIgnored
    /// A node obeys a front-end whose term is over.
    TermIgnored
    /// A testset is decided against the applied state, not against pending writes.
    DecideOnApplied
    /// Logs are matched by their lengths, not by who ordered their entries.
    LengthsOnly
    /// A node links on, and vouches for what is behind it, before its own link is settled.
    StableUnsettled
    /// A new head answers reads at once.
    NoReadFloor
    /// A sync that never ends halts nobody.
    HungSyncTolerated
    /// Neighbours that stay neighbours in a new view need no handshake.
    KeepLink
    /// A view is made of all that are not known to be dead, answered or not.
    ViewOfSilent
    /// The front-end does not send requests again that it sent to a head before.
    NoResend
    /// A node without a predecessor cuts its log to what it knows to be committed.
    CutAlone
    /// Whoever gives up a peer leaves the link open.
    KeepsGivenUpLink
    /// A failed successor is reported once.
    ReportOnce
    /// Silence counts while the observer was paused.
    CountPause
    /// An accuser that was wrong is believed again.
    AccuserBelieved
    /// A front-end that is stopping goes on making views.
    ViewsWhileStopping
    /// The last member may leave.
    LastMemberLeaves
    /// A learner that is lost after it was offered is forgotten at once.
    LearnerForgotten
    /// A member that lost its disk counts as returned.
    WipedCounts
    /// When all data in memory are gone, no new cluster is founded.
    NeverFoundedAgain
    /// A front-end that lost its directory does not wait for a learner that was offered.
    OfferIgnored
    /// A promise of this term counts, whichever front-end it was given to.
    OthersPromise
    /// A front-end waits for the members of a view that was to be adopted, though their data are gone for good.
    ClaimsForEver
    /// A front-end gives up what nodes told of as soon as none of them is connected.
    GivesUpTold
    /// Frames of older epochs are taken in.
    SkipFence
    /// A learner is ready before it holds anything.
    PromoteEarly
    /// A learner is ready before it holds all that its tail called stable.
    ReadyBehind
    /// What is stable at a node is applied there, committed or not.
    ApplyStable
    /// What was written counts as durable before it is.
    AnswerBeforeSync
    /// The log is written and never synced.
    SyncSkipped
    /// A write that is pending is ordered again when it is sent again.
    PendingForgotten
    /// The front-end tells a view before it has stored it.
    TellBeforeStored
    /// A session that is about to be evicted by a pending entry may be evicted again.
    EvictTwice
    /// A write below the window counts as new.
    WindowForgotten
    /// A snapshot has no sessions.
    SnapshotWithoutSessions
    /// The log is trimmed before the successor holds it.
    TrimTooMuch
    /// A list does not wait for its connection's pending writes.
    ListIgnoresPending
    /// A cut leaves the stable point where it was.
    CutKeepsStable
    /// Answers of a former head are believed.
    FormerHeadAnswers
    /// While a snapshot is taken in, an older entry of the log undoes a newer key.
    SnapshotUndone
    /// The tail does not need its joint learner to call anything stable.
    NotJoint
    /// A node does not store the view that it acts in.
    ViewNotStored
    /// Half a snapshot goes on in another term.
    ResumeAnyTerm
    /// A read does not wait for a pending write that its connection sent again.
    ResentReadsAtOnce
}

#[cfg(feature = "canaries")]
mod switch {
    use super::Canary;
    use std::cell::Cell;

    thread_local! {
        static ON: Cell<Option<Canary>> = const { Cell::new(None) };
    }

    /// Switches one on, in this thread, and all others off.
    pub fn switch(canary: Option<Canary>) {
        ON.set(canary);
    }

    /// Whether it is on.
    #[must_use]
    pub fn is_on(canary: Canary) -> bool {
        ON.get() == Some(canary)
    }
}

#[cfg(not(feature = "canaries"))]
mod switch {
    use super::Canary;

    /// Whether it is on: never.
    #[inline]
    #[must_use]
    pub const fn is_on(_: Canary) -> bool {
        false
    }
}

pub use switch::*;
