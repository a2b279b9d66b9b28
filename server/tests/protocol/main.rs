//! Coordinator, gateway and replicas as pure machines: situations written down as scripts, and random walks.

mod client;
mod cluster;
mod disk;
mod front_end;
mod net;
mod node;
mod oracle;
mod rng;
mod script;
mod show;
mod walk;
