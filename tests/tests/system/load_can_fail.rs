//! The tests here rest on the load's checks: they are shown a server that breaks its promises, and must say so.

use futures_util::FutureExt;
use kvservice_tests::load::{Allow, Load};
use kvservice_tests::rounds::rounds;
use kvservice_tests::single::Single;
use std::panic::AssertUnwindSafe;

/// A single server keeps nothing over a restart: acknowledged writes are lost, and so are the sessions.
#[test]
fn lost_writes_are_noticed() {
    rounds(async |round| {
        let mut single = Single::start(round, &[]).await;
        let load = Load::start(single.address, 2, Allow::Unknown);
        load.progress(200).await;
        single.restart(round).await;
        let verdict = AssertUnwindSafe(load.stop()).catch_unwind().await;
        let panic = verdict.expect_err("nothing was noticed");
        let message = panic.downcast_ref::<String>().map_or("", String::as_str);
        assert!(message.contains("promises broken"), "{message}");
        assert!(message.contains("holds None, not Some"), "{message}");
    });
}

/// An error where none is allowed is one as well.
#[test]
fn unknown_outcomes_are_noticed() {
    rounds(async |round| {
        let mut single = Single::start(round, &[]).await;
        let load = Load::start(single.address, 4, Allow::Refusals);
        load.progress(200).await;
        single.restart(round).await;
        let verdict = AssertUnwindSafe(async {
            load.progress(200).await;
            load.stop().await
        });
        let panic = verdict
            .catch_unwind()
            .await
            .expect_err("nothing was noticed");
        let message = panic.downcast_ref::<String>().map_or("", String::as_str);
        assert!(message.contains("promises broken"), "{message}");
    });
}
