//! `cargo xtask test`: everything that must hold before a change lands, as named steps.
//!
//! All builds select the whole workspace, because cargo unifies features over what a
//! command selects: dependencies are then built once, and every later step finds them.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::handlers;
use crate::npm;
use crate::project::{self, Project};
use crate::tidy;
use crate::torture;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Runs only the tests whose name contains this.
    filter: Option<String>,
    /// Runs only these steps, and those that they need.
    #[arg(long, value_enum, value_name = "STEP", value_delimiter = ',')]
    only: Vec<Step>,
    /// Runs the conformance tests of Spin against the `spin` program on the PATH, and nothing
    /// else.
    #[arg(long, conflicts_with = "only")]
    spin: bool,
}

/// The steps, in the order in which they run: the quick ones that fail most come first.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Step {
    /// The formatting of all sources.
    Fmt,
    /// Rules of the house: see `cargo xtask tidy`.
    Tidy,
    /// Lints, warnings denied.
    Clippy,
    /// Documentation, warnings denied.
    Docs,
    /// The core still builds for guests.
    Wasm,
    /// The handler components.
    Handlers,
    /// The host and all test programs.
    Build,
    /// Unit tests, and the integration tests of single crates.
    Unit,
    /// The examples in the documentation.
    Doc,
    /// The real binary, real sockets, real components, a real browser.
    E2e,
    /// Hosts that are killed at random moments.
    Torture,
}

/// The crate that holds the end-to-end tests.
const END_TO_END: &str = "tidegate-tests";
/// How often the host is killed.
const ROUNDS: u64 = 20;
/// The folder of what drives the browser in them.
const BROWSER: &str = "tests/browser";

pub(crate) fn run(project: &Project, arguments: &Arguments) -> Result<()> {
    if arguments.spin {
        return run_on_spin(project, arguments.filter.as_deref());
    }
    let mut passed: Vec<(Step, Duration)> = Vec::new();
    for step in Step::value_variants() {
        if !arguments.selects(*step) {
            continue;
        }
        println!("== {}", step.name());
        let begun = Instant::now();
        let outcome = step.run(project, arguments.filter.as_deref());
        if let Err(error) = outcome {
            summarise(&passed);
            println!("FAILED  {}", step.name());
            bail!("{}: {error:#}", step.name());
        }
        passed.push((*step, begun.elapsed()));
    }
    summarise(&passed);
    Ok(())
}

/// Runs the tests that the test host serves, with the real Spin in its place.
fn run_on_spin(project: &Project, filter: Option<&str>) -> Result<()> {
    let version = project::text_of(&mut project.program("spin", ["--version"]))?;
    println!("== {}", version.trim());
    handlers::build(project, handlers::Which::All)?;
    project::run(&mut project.cargo(["build", "--workspace", "--all-targets"]))?;
    let mut cargo = project.cargo(["test", "--workspace", "--no-fail-fast"]);
    let filter = format!("conformance::on_spin::{}", filter.unwrap_or_default());
    project::run(
        cargo
            .args(["--test", "e2e", &filter])
            .env("TIDEGATE_SPIN", "1"),
    )
}

fn summarise(passed: &[(Step, Duration)]) {
    println!("== summary");
    for (step, took) in passed {
        println!("passed  {:<9} {:>4} s", step.name(), took.as_secs());
    }
}

impl Arguments {
    fn selects(&self, step: Step) -> bool {
        self.only.is_empty()
            || self
                .only
                .iter()
                .any(|wanted| *wanted == step || wanted.needs().contains(&step))
    }
}

impl Step {
    fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    fn needs(self) -> &'static [Step] {
        match self {
            Step::Unit => &[Step::Handlers],
            Step::E2e | Step::Torture => &[Step::Handlers, Step::Build],
            _ => &[],
        }
    }

    fn run(self, project: &Project, filter: Option<&str>) -> Result<()> {
        match self {
            Step::Fmt => project::run(&mut project.cargo(["fmt", "--all", "--", "--check"])),
            Step::Tidy => tidy::run(project),
            Step::Clippy => project::run(&mut project.cargo([
                "clippy",
                "--workspace",
                "--all-targets",
                "--",
                "--deny=warnings",
            ])),
            Step::Docs => project::run(
                project
                    .cargo(["doc", "--workspace", "--no-deps"])
                    .env("RUSTDOCFLAGS", "--deny=warnings"),
            ),
            Step::Wasm => project::run(&mut project.cargo([
                "check",
                "--package",
                "tidegate-core",
                "--target",
                "wasm32-wasip2",
            ])),
            Step::Handlers => handlers::build(project, handlers::Which::All),
            Step::Build => {
                project::run(&mut project.cargo(["build", "--workspace", "--all-targets"]))
            }
            Step::Unit => {
                let crates = ["core", "host", "sdk", "components", "xtask"];
                let tests = crates
                    .into_iter()
                    .flat_map(|folder| project.packages_in(folder))
                    .flat_map(|package| &package.tests);
                let mut cargo =
                    project.cargo(["test", "--workspace", "--no-fail-fast", "--lib", "--bins"]);
                project::run(
                    cargo
                        .args(tests.flat_map(|name| ["--test", name]))
                        .args(filter),
                )
            }
            Step::Doc => project::run(project.cargo(["test", "--workspace", "--doc"]).args(filter)),
            Step::E2e => {
                npm::install(project, &project.root().join(BROWSER))?;
                let tests = project
                    .packages_in("tests")
                    .filter(|package| package.name == END_TO_END)
                    .flat_map(|package| &package.tests);
                let mut cargo = project.cargo(["test", "--workspace", "--no-fail-fast"]);
                project::run(
                    cargo
                        .args(tests.flat_map(|name| ["--test", name]))
                        .args(filter),
                )
            }
            Step::Torture => torture::run_built(project, ROUNDS, torture::seed_of_now(), "strict"),
        }
    }
}
