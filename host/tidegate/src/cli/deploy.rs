//! `tidegate deploy`: uploads a component and follows what the host does with it, or lists
//! the versions that the host keeps.

use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context, bail};
use serde::Deserialize;
use ureq::SendBody;
use ureq::http::Method;

use super::progress::Upload;
use super::remote::{self, Answer, Remote, component_path, failure_in, forced, short};
use super::{print, versions};

#[derive(clap::Args)]
pub(crate) struct Deploy {
    /// The component.
    #[arg(value_name = "FILE.wasm", required_unless_present = "list")]
    file: Option<PathBuf>,
    /// Uploads nothing: lists the versions that the host keeps, of one component or of all.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["file", "name", "force"])]
    list: Option<Option<String>>,
    #[command(flatten)]
    remote: Remote,
    /// What the host calls it [default: the file's name without its ending].
    #[arg(long)]
    name: Option<String>,
    /// Replaces also a component whose actors are live and that the new one has no type for.
    #[arg(long)]
    force: bool,
}

/// How far the host has come.
#[derive(Deserialize)]
struct Progress {
    stage: String,
}

/// What the host serves now.
#[derive(Deserialize)]
struct Deployed {
    name: String,
    /// Absent where nothing is kept.
    #[serde(default)]
    version: Option<u64>,
    digest: String,
    actors: Vec<String>,
    replaced: Option<String>,
    changed: bool,
}

impl Deploy {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let path = match (&self.list, &self.file) {
            (Some(name), _) => return versions::list(&self.remote.client()?, name.as_deref()),
            (None, Some(path)) => path,
            (None, None) => bail!("expected FILE.wasm or --list"),
        };
        let shown = path.display();
        let name = match &self.name {
            Some(name) => name.clone(),
            None => {
                let stem = path.file_stem().and_then(|stem| stem.to_str());
                let stem = stem.with_context(|| format!("{shown} gives no name: use --name"))?;
                stem.to_owned()
            }
        };
        let cannot_read = || format!("cannot read {shown}");
        let file = File::open(path).with_context(cannot_read)?;
        let about = file.metadata().with_context(cannot_read)?;
        if !about.is_file() {
            bail!("cannot read {shown}: not a file");
        }
        let client = self.remote.client()?;
        let path = component_path(&name) + forced(self.force);
        let mut body = Upload::new(file, about.len());
        let request = client
            .request(Method::PUT, &path)
            .header("content-type", "application/wasm")
            .header("content-length", about.len())
            .header("accept", "text/event-stream")
            // So that a refusal comes before the body has been sent in vain.
            .header("expect", "100-continue")
            .body(SendBody::from_reader(&mut body))?;
        let answer = client.send(request);
        body.end();
        let deployed = match answer? {
            answer if answer.is_stream() => follow(answer, client.base())?,
            answer => answer.json()?,
        };
        Ok(print(&deployed.line())?)
    }
}

/// Shows the stages until the host says what came of it.
fn follow(answer: Answer, base: &str) -> anyhow::Result<Deployed> {
    let mut events = answer.events();
    while let Some(event) = events.next()? {
        match event.name.as_str() {
            "progress" => {
                if let Ok(progress) = remote::read::<Progress>(&event.data) {
                    eprintln!("{}", progress.stage);
                }
            }
            "result" => {
                return remote::read(&event.data)
                    .with_context(|| format!("{base} sends a result that is not as expected"));
            }
            "error" => return Err(failure_in(&event.data)),
            // A later version may tell more.
            _ => {}
        }
    }
    bail!(
        "{base} ends its answer without saying what came of it; \
         `tidegate components --to {base}` lists what it serves"
    )
}

impl Deployed {
    fn line(&self) -> String {
        let fate = match &self.replaced {
            _ if !self.changed => "unchanged".to_owned(),
            Some(old) => format!("replaced {}", short(old)),
            None => "new".to_owned(),
        };
        let version = self.version.map(|version| format!("version {version}; "));
        format!(
            "deployed {} {} ({}actors: {}; {fate})\n",
            self.name,
            short(&self.digest),
            version.unwrap_or_default(),
            self.actors.join(", ")
        )
    }
}
