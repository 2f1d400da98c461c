//! The command that the program itself begins: it compiles one component for the process at
//! the other end of its standard input and output.

use std::process::ExitCode;

use tidegate_engine as engine;

#[derive(clap::Args)]
pub(crate) struct Compile {
    /// What there is to do, as JSON.
    job: String,
}

impl Compile {
    pub(crate) fn run(self) -> ExitCode {
        engine::compile_for_another(&self.job)
    }
}
