//! The journal on a disk that loses power, fails and rots.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod crash;
mod damage;
mod random;
mod rig;
