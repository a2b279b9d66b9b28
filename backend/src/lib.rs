//! A node of the chain: a pure replica, its storage, its links, and the task that drives them.
//!
//! [`chain`] thinks and touches nothing; [`storage`] keeps; [`link`] carries frames over [`net`]; [`runtime`] is the
//! one task that feeds the replica events and carries out its effects, and [`start`] what sets it up.

pub mod chain;
pub mod flags;
pub mod link;
pub mod net;
pub mod pages;
pub mod runtime;
pub mod shutdown;
pub mod start;
pub mod storage;
