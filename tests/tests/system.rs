//! The whole system, on real processes: everything that `docs/protocol.md` promises of a chain under
//! failures, with clients at work whose every answer is checked (`kvservice_tests::load`).

#[path = "system/bad_input.rs"]
mod bad_input;
#[path = "system/bad_peers.rs"]
mod bad_peers;
#[path = "system/churn.rs"]
mod churn;
#[path = "system/dump.rs"]
mod dump;
#[path = "system/durability.rs"]
mod durability;
#[path = "system/failover.rs"]
mod failover;
#[path = "system/front_end.rs"]
mod front_end;
#[path = "system/grammar.rs"]
mod grammar;
#[path = "system/identity.rs"]
mod identity;
#[path = "system/load_can_fail.rs"]
mod load_can_fail;
#[path = "system/membership.rs"]
mod membership;
#[path = "system/silence.rs"]
mod silence;
