//! Bugs that can be switched on, and within how many seeds each is found.

use crate::hunt::hunt_with;
use crate::run::Plan;
use anyhow::{Result, bail};
use kvservice_shared::canary::Canary;
use std::num::NonZero;
use std::time::Instant;

/// Every canary must be found within so many seeds.
pub const SEEDS_MAX: u64 = 2000;

/// Those that seeds do not find for sure, and the script of `tests/script` that does. A front-end whose term is over and
/// that lives on is a second front-end, which no seed has; the others need several rare things at once, or two
/// faults where seeds have many, which excuse what they do.
pub const OF_SCRIPTS: &[(Canary, &str)] = &[
    (
        Canary::TermIgnored,
        "front_end_views_of_an_older_term_are_refused",
    ),
    (Canary::OfferIgnored, "front_end_wiped_with_an_open_offer"),
    (Canary::ResumeAnyTerm, "join_snapshot_of_another_term"),
    (Canary::ViewOfSilent, "killed_all_but_one"),
    (Canary::NoResend, "head_killed_under_load"),
    (Canary::OthersPromise, "front_end_wiped_twice"),
    (
        Canary::GivesUpTold,
        "front_end_wiped_and_the_offered_one_away",
    ),
    (Canary::ClaimsForEver, "front_end_wiped_and_all_in_memory"),
    (Canary::CountPause, "suspect_observer_resumes"),
    (Canary::AccuserBelieved, "suspect_in_turn"),
    (Canary::ReportOnce, "report_lost_with_its_epoch"),
    (Canary::KeepsGivenUpLink, "link_stalls"),
    (
        Canary::ResentReadsAtOnce,
        "read_waits_for_a_write_sent_again",
    ),
    (Canary::FormerHeadAnswers, "answers_of_an_older_epoch"),
    (Canary::CutKeepsStable, "disk_cut_below_what_was_stable"),
];

/// Switches each canary on and hunts it.
///
/// # Errors
/// If one is not found, or this simulator was built without them.
pub fn hunt_all(plan: Plan, jobs: Option<NonZero<usize>>, only: Option<&str>) -> Result<()> {
    if !cfg!(all(feature = "canaries", feature = "small-limits")) {
        bail!(
            "this simulator was built without canaries: `cargo xtask sim --canaries` builds one with them"
        );
    }
    let of_seeds = |canary: &Canary| OF_SCRIPTS.iter().all(|(other, _)| other != canary);
    let wanted = |canary: &&Canary| match only {
        None => of_seeds(canary),
        Some(name) => format!("{canary:?}") == name,
    };
    let chosen: Vec<Canary> = Canary::ALL.iter().filter(wanted).copied().collect();
    if chosen.is_empty() {
        let names: Vec<String> = Canary::ALL
            .iter()
            .map(|canary| format!("{canary:?}"))
            .collect();
        bail!("no canary has this name; there are {}", names.join(", "));
    }
    println!("{:<24} {:>6} {:>8}  found as", "canary", "seeds", "seconds");
    let mut missed = Vec::new();
    for canary in chosen {
        let started = Instant::now();
        let (totals, found) = hunt_with(Some(canary), plan, SEEDS_MAX, jobs, &|_| {});
        let seconds = started.elapsed().as_secs_f64();
        let name = format!("{canary:?}");
        match found {
            Some(found) => {
                let seeds = found.plan.seed - plan.seed + 1;
                let what: String = found.failure.what.chars().take(120).collect();
                println!(
                    "{name:<24} {seeds:>6} {seconds:>8.1}  {}",
                    what.replace('\n', " ")
                );
            }
            None => {
                println!(
                    "{name:<24} {:>6} {seconds:>8.1}  NOT FOUND: {}",
                    totals.seeds,
                    canary.about()
                );
                missed.push(name);
            }
        }
    }
    if only.is_none() {
        for (canary, script) in OF_SCRIPTS {
            println!("{:<24} found by the script {script}", format!("{canary:?}"));
        }
    }
    match missed.is_empty() {
        true => Ok(()),
        false => bail!("not found within {SEEDS_MAX} seeds: {}", missed.join(", ")),
    }
}

/// Switches a canary on in this thread.
pub fn switch(_canary: Option<Canary>) {
    #[cfg(feature = "canaries")]
    kvservice_shared::canary::switch(_canary);
}
