//! How many descriptors a server may have open.

use std::ffi::OsStr;

use tokio::process::Command;

/// A limit of descriptors (`RLIMIT_NOFILE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Descriptors {
    /// That of this program.
    Inherited,
    /// So many. It is the hard limit too, so that no server can raise it.
    AtMost(u32),
}

impl Descriptors {
    /// What starts this program.
    pub(super) fn command(self, program: impl AsRef<OsStr>) -> Command {
        let Descriptors::AtMost(count) = self else {
            return Command::new(program);
        };
        // The shell becomes the program, so that the process is the server's.
        let mut command = Command::new("sh");
        command.args(["-c", r#"ulimit -n "$0" && exec "$@""#, &count.to_string()]);
        command.arg(program);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_has_the_limit_and_its_arguments() {
        let mut command = Descriptors::AtMost(77).command("sh");
        command.args([
            "-c",
            r#"echo "$(ulimit -Sn) $(ulimit -Hn) $1""#,
            "sh",
            "a b",
        ]);
        let output = command.output().await.unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "77 77 a b\n");
    }
}
