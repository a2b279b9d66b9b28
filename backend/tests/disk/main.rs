//! The journal on a disk that loses power, fails and rots.

mod crash;
mod damage;
mod figures;
mod random;
mod rig;
