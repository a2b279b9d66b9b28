//! What is drawn, a component a file. They hold no state but what is theirs alone (a measured width, an
//! open hint); what they hear from the reader goes up as an event of the state.

pub mod card;
pub mod chain;
pub mod editor;
pub mod events;
pub mod keys;
pub mod notices;
pub mod numbers;
pub mod prompt;
pub mod tabs;
pub mod top_bar;
