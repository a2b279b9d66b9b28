//! Runs the Python example against a real chain, and breaks the chain under it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::interrupt;
use crate::run::Line;
use crate::system::ports::{Ports, loopback};
use crate::system::{FRONT_END, Places, System};
use crate::workspace::{Profile, Workspace};

/// Runs `docs/examples/client.py` with `python`. While it counts, the head is killed, then the
/// front-end, which is started again: the example must not lose count.
///
/// # Errors
/// If the system does not start, or the example fails.
pub fn run(workspace: &Workspace, python: &Path) -> Result<()> {
    // The servers must not outlive us.
    interrupt::count()?;
    let ports = Ports::free_chain(3)?;
    let data = workspace.target.join("example-data");
    if data.exists() {
        fs::remove_dir_all(&data).with_context(|| format!("cannot remove {}", data.display()))?;
    }
    let places = Places::in_dir(data)?;
    let mut system = System::start(workspace, Profile::Debug, &places, &ports)?;

    let line = Line::new(python)
        .arg("docs/examples/client.py")
        .arg(format!("ws://{}/v1/ws", loopback(ports.clients)))
        .dir(&workspace.root);
    println!("$ {line}");
    let mut restarted = Ok(());
    let mut broken = 0;
    line.run_watched(|text| match text {
        "counter 300" => {
            println!("(the head is killed)");
            system.kill("n1");
            broken += 1;
        }
        "counter 600" => {
            println!("(the front-end is killed, and started again)");
            system.kill(FRONT_END);
            restarted = system.restart(FRONT_END);
            broken += 1;
        }
        _ => {}
    })
    .with_context(|| {
        format!(
            "the example failed; the servers' logs: {}",
            places.logs.display()
        )
    })?;
    restarted?;
    ensure!(broken == 2, "the example did not count to 600");
    Ok(())
}
