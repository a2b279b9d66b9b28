//! `cargo xtask up`: a whole system on this machine, and a prompt on it, by one command.
//!
//! The servers are built, started and waited for; then the prompt opens. What only the page
//! needs takes far longer the first time and is done meanwhile, out of sight; the front-end
//! serves the page from the moment it is there. When the prompt ends, or on ctrl-c, everything
//! that was started is stopped.

mod prompt;

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::value_parser;

use self::prompt::Prompt;
use crate::interrupt::{self, interrupted};
use crate::page;
use crate::run::{Background, Line, POLL, Runner, show_duration};
use crate::system::ports::{NODES_MAX, Ports, loopback};
use crate::system::{Places, System};
use crate::workspace::{Profile, Workspace};

/// What to run, and on which ports.
#[derive(clap::Args)]
pub struct Options {
    /// How many back-ends the chain has
    #[arg(long, value_name = "N", default_value_t = 3, conflicts_with = "single")]
    #[arg(value_parser = value_parser!(u16).range(1..=i64::from(NODES_MAX)))]
    nodes: u16,
    /// One process instead of a chain
    #[arg(long)]
    single: bool,
    /// The port for clients and the page; nodes take the ports from this plus 1
    #[arg(long, value_name = "PORT", default_value_t = 7400)]
    #[arg(value_parser = value_parser!(u16).range(1..=65_500))]
    port_base: u16,
    /// Open no prompt; run until ctrl-c
    #[arg(long)]
    no_prompt: bool,
    /// Do not build the page
    #[arg(long)]
    no_web: bool,
}

/// Runs a system until its user has had enough.
///
/// # Errors
/// If another `up` has the ports, a port is taken, or anything cannot be built or started.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let ports = if options.single {
        Ports::single(options.port_base)
    } else {
        Ports::chain(options.port_base, options.nodes)
    };
    let places = Places::in_dir(workspace.root.join("kvservice-data"))?;
    let _lock = lock(&places.data, &ports)?;
    ports.check()?;
    interrupt::count()?;

    build_servers(workspace)?;
    let mut page = Page::start(workspace, &places, options)?;
    let mut system = System::start(workspace, Profile::Release, &places, &ports)?;
    println!(
        "{}",
        introduction(workspace, &ports, &places, &system, &page, options)
    );

    let mut prompt = if options.no_prompt {
        Prompt::none()
    } else {
        let server = loopback(ports.clients).to_string();
        let client = workspace.bin(Profile::Release, "kvservice");
        Prompt::open(&Line::new(client).args(["--server", &server]))?
    };
    while !interrupted() && prompt.ended().is_none() {
        if let Some(news) = page.news() {
            prompt.tell(&news);
        }
        for loss in system.losses() {
            prompt.tell(&loss);
        }
        thread::sleep(POLL);
    }
    prompt.close();

    prompt.tell("Stopping everything that was started here.");
    page.cancel();
    for note in system.stop() {
        prompt.tell(&note);
    }
    Ok(())
}

/// Makes sure that no other `up` runs on these ports, as long as the file lives.
fn lock(data: &Path, ports: &Ports) -> Result<File> {
    let path = data.join(format!("up-{}.lock", ports.clients));
    let show = || format!("cannot use {}", path.display());
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(show)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            bail!(
                "an xtask up runs here already (pid {}), its page is http://{}/\n\
                 Type exit at its prompt to stop it, or start another beside it:\n  {}",
                pid.trim(),
                loopback(ports.clients),
                ports.elsewhere(),
            );
        }
        Err(fs::TryLockError::Error(error)) => return Err(error).with_context(show),
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .with_context(show)?;
    writeln!(file, "{}", std::process::id()).with_context(show)?;
    Ok(file)
}

fn build_servers(workspace: &Workspace) -> Result<()> {
    if !workspace.bin(Profile::Release, "kvservice-server").exists() {
        println!(
            "First run: compiling the servers and the terminal client, which takes some minutes.\n\
             The prompt opens as soon as they run; what the page needs is done after that."
        );
    }
    let packages = ["kvservice-server", "kvservice-backend", "kvservice-client"];
    let line = Line::new("cargo")
        .args(["build", "--release", "--bins"])
        .args(packages.iter().flat_map(|package| ["--package", package]))
        .dir(&workspace.root);
    line.run()
}

fn introduction(
    workspace: &Workspace,
    ports: &Ports,
    places: &Places,
    system: &System,
    page: &Page,
    options: &Options,
) -> String {
    let what = match ports.nodes.len() {
        0 => "A single server runs".to_owned(),
        1 => "A chain of one node runs".to_owned(),
        nodes => format!("A chain of {nodes} nodes runs"),
    };
    let stop = if options.no_prompt {
        "ctrl-c stops"
    } else {
        "exit or ctrl-c stops"
    };
    let kill = match ports.nodes.len() {
        0 | 1 => "",
        _ => "Kill any node but the last and go on; started again, it joins at the tail.\n",
    };
    format!(
        "\n{what}. Its data are in {}/: kill what you like, nothing acknowledged is lost.\n\n  \
         page  http://{}/  {}\n\n{}\n{kill}{stop} everything that was started here.\n",
        workspace.show(&places.data),
        loopback(ports.clients),
        page.describe(workspace),
        system.describe(workspace),
    )
}

/// The page's build, which goes on behind the prompt.
struct Page {
    state: PageState,
}

enum PageState {
    /// Nothing to build.
    Idle(&'static str),
    Building(Building),
}

struct Building {
    log: std::path::PathBuf,
    background: Arc<Background>,
    worker: Option<JoinHandle<Result<page::Sizes>>>,
    since: Instant,
}

impl Page {
    fn start(workspace: &Workspace, places: &Places, options: &Options) -> Result<Self> {
        if page::is_current(workspace) {
            return Ok(Self {
                state: PageState::Idle(""),
            });
        }
        if options.no_web {
            let text = "(not built, for --no-web; `cargo xtask web` builds it)";
            return Ok(Self {
                state: PageState::Idle(text),
            });
        }
        let log = places.logs.join("web.log");
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let background = Arc::new(Background::new(file));
        let workspace = workspace.clone();
        let runner = Runner::Background(Arc::clone(&background));
        let worker = thread::spawn(move || page::build(&workspace, &runner));
        let since = Instant::now();
        let building = Building {
            log,
            background,
            worker: Some(worker),
            since,
        };
        Ok(Self {
            state: PageState::Building(building),
        })
    }

    fn describe(&self, workspace: &Workspace) -> String {
        match &self.state {
            PageState::Idle(text) => (*text).to_owned(),
            PageState::Building(building) => {
                format!("(being built; log {})", workspace.show(&building.log))
            }
        }
    }

    /// What has become of the build, once.
    fn news(&mut self) -> Option<String> {
        let PageState::Building(building) = &mut self.state else {
            return None;
        };
        let worker = building.worker.take_if(|worker| worker.is_finished())?;
        let took = show_duration(building.since.elapsed());
        Some(match worker.join() {
            Ok(Ok(sizes)) => {
                format!(
                    "The page is ready, {} kB in all, after {took}.",
                    sizes.served() / 1000
                )
            }
            Ok(Err(error)) => format!(
                "The page could not be built: {error:#}\nIts log: {}\nTry again: cargo xtask web",
                building.log.display()
            ),
            Err(_) => format!("The page's build broke off: {}", building.log.display()),
        })
    }

    /// Ends the programs that build it. The thread is not waited for: it may be compressing a
    /// file, or waiting for another build, and what it leaves behind is swept up by the next.
    fn cancel(&mut self) {
        if let PageState::Building(building) = &mut self.state {
            building.background.cancel();
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.cancel();
    }
}
