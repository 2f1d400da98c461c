//! Files of callgrind: costs of functions, line by line.
//!
//! A file names the object, the file and the function that lines of costs belong to, until it
//! names others. Behind each line `calls=` is one with what the called function took, which that
//! one has lines of its own for. The form is described in valgrind's manual, "Callgrind Format
//! Specification"; names must be written out (`--compress-strings=no`).
//!
//! Invariant: what was visited is what the file says that ran, to the last instruction.

use anyhow::{Context, Result, bail, ensure};

/// A function that ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Function<'a> {
    /// The file that it was loaded from; `???` of code that was made in memory.
    pub(super) object: &'a str,
    /// Its name, demangled, or its address.
    pub(super) name: &'a str,
}

/// Visits the costs of all functions, each for itself; a function may come many times.
pub(super) fn visit<'a>(text: &'a str, mut visit: impl FnMut(Function<'a>, u64)) -> Result<()> {
    let mut function = Function {
        object: "",
        name: "",
    };
    let (mut visited, mut stated) = (0_u64, None::<u64>);
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some((key, value)) = line.split_once('=')
            && key.bytes().all(|byte| byte.is_ascii_lowercase())
        {
            match key {
                "ob" => function.object = value,
                "fn" => function.name = value,
                "calls" => {
                    lines.next().context("expected the cost of a call")?;
                }
                // Where a line is in the source, and what is called.
                "fl" | "fi" | "fe" | "cob" | "cfl" | "cfi" | "cfn" => {}
                other => bail!("expected a line of costs, found {other}="),
            }
        } else if let Some((key, value)) = header(line) {
            match key {
                "events" => ensure!(value == "Ir", "expected instructions, found {value}"),
                "positions" => ensure!(value == "line", "expected lines, found {value}"),
                // `summary` is off by what was under way when counting began.
                "totals" => stated = Some(value.parse().with_context(|| line.to_owned())?),
                _ => {}
            }
        } else if let Some((_line, cost)) = line.split_once(' ')
            && !line.starts_with('#')
        {
            let cost: u64 = cost.trim().parse().with_context(|| line.to_owned())?;
            ensure!(!function.name.is_empty(), "a cost of no function: {line}");
            visited += cost;
            visit(function, cost);
        }
    }
    let stated = stated.context("expected a line totals:")?;
    ensure!(
        visited == stated,
        "expected {stated} instructions, found {visited}"
    );
    Ok(())
}

/// A line such as `events: Ir`.
fn header(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once(':')?;
    let is_word = key.bytes().all(|byte| byte.is_ascii_lowercase());
    (is_word && !key.is_empty()).then_some((key, value.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# callgrind format\nversion: 1\ncreator: callgrind-3.19.0\n\
        cmd:  ./host up --set a=b\n\ndesc: Trigger: dump\n\npositions: line\nevents: Ir\n\
        summary: 14\n\n\nob=/bin/host\nfl=a.rs\nfn=a::run\n3 4\nfi=b.rs\n9 2\nfe=a.rs\n\
        cob=/lib/libc.so.6\ncfi=c.c\ncfn=memcpy\ncalls=2 40 \n4 7\n5 3\n\n\
        ob=/lib/libc.so.6\nfl=c.c\nfn=memcpy\n40 7\n\ntotals: 16\n";

    #[test]
    fn each_function_counts_for_itself() {
        let mut seen = Vec::new();
        visit(FILE, |function, cost| seen.push((function, cost))).unwrap();
        let run = Function {
            object: "/bin/host",
            name: "a::run",
        };
        let copy = Function {
            object: "/lib/libc.so.6",
            name: "memcpy",
        };
        assert_eq!(seen, [(run, 4), (run, 2), (run, 3), (copy, 7)]);
    }

    #[test]
    fn names_may_hold_what_lines_are_made_of() {
        let text = "events: Ir\nob=???\nfn=<a::B as c::D<E = f: G>>::h\n0 1\ntotals: 1\n";
        let mut names = Vec::new();
        visit(text, |function, _| names.push(function.name)).unwrap();
        assert_eq!(names, ["<a::B as c::D<E = f: G>>::h"]);
    }

    #[test]
    fn a_sum_that_is_not_the_stated_one_is_an_error() {
        let short = FILE.replace("3 4\n", "");
        let error = visit(&short, |_, _| ()).unwrap_err().to_string();
        assert_eq!(error, "expected 16 instructions, found 12");
        let headless = "ob=???\nfn=a\n0 1\n";
        assert!(visit(headless, |_, _| ()).is_err());
    }

    #[test]
    fn other_events_are_refused() {
        let cycles = FILE.replace("events: Ir", "events: Cycles");
        assert!(visit(&cycles, |_, _| ()).is_err());
    }
}
