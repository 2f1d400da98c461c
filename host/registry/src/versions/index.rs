//! Which versions of each component there are, and which of them serves: the rules, and
//! the text that is kept of them. No I/O.
//!
//! Invariant: a history has at least one version, their numbers ascend, and the current one
//! is among them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::Sha256;
use tidegate_core::Name;

/// What the text begins with, before the number of its format.
const MAGIC: &str = "tidegate components ";
/// The format that is written, and the newest that is read.
pub(super) const FORMAT: u32 = 1;

/// SHA-256 of a component's file, in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// The digest of a file with this content.
    pub fn of(bytes: &[u8]) -> Digest {
        let digest = <Sha256 as sha2::Digest>::digest(bytes);
        Digest(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Reads 64 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Option<Digest> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let fits = text.len() == 64 && text.bytes().all(is_digit);
        fits.then(|| Digest(text.to_owned()))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Digest {
    type Error = String;

    fn try_from(text: String) -> Result<Digest, String> {
        Digest::parse(&text).ok_or_else(|| format!("`{text}` is no SHA-256 in hexadecimal"))
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.0
    }
}

/// Where a version came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// It was uploaded.
    Upload,
    /// The application manifest named it.
    Manifest,
}

/// One version of a component.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Version {
    /// Its number; the first one of a name is 1.
    pub version: u64,
    /// Which file it is.
    pub digest: Digest,
    /// The file's length.
    pub bytes: u64,
    /// When it first served, in milliseconds since the Unix epoch.
    pub deployed_ms: u64,
    /// Where it came from.
    pub source: Source,
    /// It was current when somebody went back behind it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub withdrawn: bool,
}

/// The versions of one name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct History {
    /// The one that serves.
    current: u64,
    /// What the file that the application manifest names was when `current` began to serve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    manifest: Option<Digest>,
    /// All that are kept, oldest first.
    versions: Vec<Version>,
}

/// Which component serves a name when the host starts, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// This version.
    Kept(Version, &'static str),
    /// The one that the application manifest names.
    Manifest(&'static str),
    /// No version serves.
    Nothing(&'static str),
}

impl History {
    /// All that are kept, oldest first.
    pub fn versions(&self) -> &[Version] {
        &self.versions
    }

    /// The one that serves.
    pub fn current(&self) -> &Version {
        let found = self.version(self.current);
        found.expect("the current version is among them")
    }

    /// The one with this number.
    pub fn version(&self, number: u64) -> Option<&Version> {
        let mut versions = self.versions.iter();
        versions.find(|version| version.version == number)
    }

    /// Which version is served by a component with this digest: the current one if it can
    /// be, else the newest.
    pub fn served(&self, digest: &str) -> Option<&Version> {
        let is_it = |version: &&Version| version.digest.as_str() == digest;
        let newest = || self.versions.iter().rev().find(is_it);
        Some(self.current()).filter(is_it).or_else(newest)
    }

    /// The newest version before this one that nobody went back behind.
    pub fn before(&self, number: u64) -> Option<&Version> {
        let mut versions = self.versions.iter().rev();
        versions.find(|version| version.version < number && !version.withdrawn)
    }

    /// What serves when the host starts; `manifest` is the file that the application
    /// manifest names, if it has one.
    pub fn choice(&self, manifest: Option<&Digest>) -> Choice {
        let current = self.current();
        match manifest {
            Some(manifest) if *manifest == current.digest => {
                Choice::Manifest("it is the current version")
            }
            Some(manifest) if self.manifest.as_ref() == Some(manifest) => Choice::Kept(
                current.clone(),
                "the manifest's file has not changed since it was deployed",
            ),
            Some(_) => Choice::Manifest("its file has changed since the last deployment"),
            None if current.source == Source::Upload => {
                Choice::Kept(current.clone(), "it was deployed to this host")
            }
            None => Choice::Nothing("the manifest does not name it any more"),
        }
    }

    fn check(&self) -> Result<(), String> {
        let mut pairs = self.versions.iter().zip(self.versions.iter().skip(1));
        if !pairs.all(|(one, next)| one.version < next.version) {
            return Err("its numbers do not ascend".to_owned());
        }
        match self.version(self.current) {
            Some(_) => Ok(()),
            None => Err(format!("there is no version {}", self.current)),
        }
    }
}

/// The versions of all names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    names: BTreeMap<Name, History>,
}

/// The names as they are kept.
type Kept = BTreeMap<String, History>;

/// Why a text is no index.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// Of a later format.
    Newer(u32),
    /// Not whole, or changed.
    Damaged(String),
}

impl Index {
    pub(super) fn history(&self, name: &Name) -> Option<&History> {
        self.names.get(name)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&Name, &History)> {
        self.names.iter()
    }

    /// Files that are needed.
    pub(super) fn digests(&self) -> impl Iterator<Item = &Digest> {
        let versions = self.names.values().flat_map(|history| &history.versions);
        versions.map(|version| &version.digest)
    }

    /// Puts what was there before back in its place.
    pub(super) fn restore(&mut self, name: &Name, history: Option<History>) {
        match history {
            Some(history) => drop(self.names.insert(name.clone(), history)),
            None => drop(self.names.remove(name)),
        }
    }

    /// Makes this the newest and current version; keeps at most `limit` of the name. The
    /// stamp of the manifest's file stays as it is where none is given.
    pub(super) fn add(
        &mut self,
        name: &Name,
        mut version: Version,
        manifest: Option<Digest>,
        limit: usize,
    ) -> Version {
        let before = self.names.remove(name);
        let (mut versions, stamp) = match before {
            Some(history) => (history.versions, history.manifest),
            None => (Vec::new(), None),
        };
        version.version = versions.last().map_or(1, |last| last.version + 1);
        versions.push(version.clone());
        let surplus = versions.len().saturating_sub(limit.max(1));
        versions.drain(..surplus);
        let history = History {
            current: version.version,
            manifest: manifest.or(stamp),
            versions,
        };
        self.names.insert(name.clone(), history);
        version
    }

    /// Makes another version current. What is newer than it and was current is withdrawn.
    /// False if there is none of this number.
    pub(super) fn switch(&mut self, name: &Name, number: u64, manifest: Option<Digest>) -> bool {
        let Some(history) = self.names.get_mut(name) else {
            return false;
        };
        if history.version(number).is_none() {
            return false;
        }
        let left = std::mem::replace(&mut history.current, number);
        for version in &mut history.versions {
            if version.version == left {
                version.withdrawn = left > number;
            }
            if version.version == number {
                version.withdrawn = false;
            }
        }
        if manifest.is_some() {
            history.manifest = manifest;
        }
        true
    }

    pub(super) fn parse(text: &[u8]) -> Result<Index, Unreadable> {
        let damaged = |detail: &str| Unreadable::Damaged(detail.to_owned());
        let text = std::str::from_utf8(text).map_err(|_| damaged("it is not UTF-8"))?;
        let (head, body) = text.split_once('\n').unwrap_or((text, ""));
        let head = head.strip_prefix(MAGIC);
        let head = head.ok_or_else(|| damaged("it does not begin as one"))?;
        let (format, sum) = head.split_once(' ').unwrap_or((head, ""));
        match format.parse() {
            Ok(FORMAT) => {}
            Ok(newer) if newer > FORMAT => return Err(Unreadable::Newer(newer)),
            _ => return Err(damaged("its format has no number")),
        }
        if Digest::of(body.as_bytes()).as_str() != sum {
            return Err(damaged("its content does not match its digest"));
        }
        let kept: Kept =
            serde_json::from_str(body).map_err(|error| Unreadable::Damaged(error.to_string()))?;
        let mut names = BTreeMap::new();
        for (name, history) in kept {
            let wrong = |detail: String| Unreadable::Damaged(format!("`{name}`: {detail}"));
            history.check().map_err(wrong)?;
            let parsed = Name::parse(&name).map_err(|error| wrong(error.to_string()))?;
            names.insert(parsed, history);
        }
        Ok(Index { names })
    }

    pub(super) fn to_text(&self) -> String {
        let names = self.names.iter();
        let kept: BTreeMap<&str, &History> = names
            .map(|(name, history)| (name.as_str(), history))
            .collect();
        let body = serde_json::to_string_pretty(&kept).expect("an index is what JSON can hold");
        let body = body + "\n";
        let sum = Digest::of(body.as_bytes());
        format!("{MAGIC}{FORMAT} {}\n{body}", sum.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> Name {
        Name::parse("counter").unwrap()
    }

    fn version(content: &str, source: Source) -> Version {
        Version {
            version: 0,
            digest: Digest::of(content.as_bytes()),
            bytes: content.len() as u64,
            deployed_ms: 7,
            source,
            withdrawn: false,
        }
    }

    /// Versions with these contents, uploaded over a manifest's file `m`.
    fn index(contents: &[&str]) -> Index {
        let mut index = Index::default();
        for content in contents {
            let version = version(content, Source::Upload);
            index.add(&name(), version, Some(Digest::of(b"m")), 10);
        }
        index
    }

    fn history(index: &Index) -> &History {
        index.history(&name()).unwrap()
    }

    #[test]
    fn the_newest_is_current_and_numbers_go_on() {
        let index = index(&["a", "b", "a"]);
        let numbers: Vec<u64> = history(&index)
            .versions()
            .iter()
            .map(|v| v.version)
            .collect();
        assert_eq!(numbers, [1, 2, 3]);
        assert_eq!(history(&index).current().version, 3);
    }

    #[test]
    fn only_so_many_are_kept_and_numbers_are_not_given_again() {
        let mut index = Index::default();
        for content in ["a", "b", "c", "d"] {
            index.add(&name(), version(content, Source::Upload), None, 2);
        }
        let kept = history(&index).versions();
        let numbers: Vec<u64> = kept.iter().map(|version| version.version).collect();
        assert_eq!(numbers, [3, 4]);
        assert_eq!(index.digests().count(), 2);
    }

    #[test]
    fn going_back_passes_over_what_was_left_so() {
        let mut index = index(&["a", "b", "c"]);
        assert_eq!(history(&index).before(3).unwrap().version, 2);
        assert!(index.switch(&name(), 2, None));
        assert_eq!(history(&index).before(2).unwrap().version, 1);
        index.add(&name(), version("d", Source::Upload), None, 10);
        // Version 3 was bad; 2 is what served before 4.
        assert_eq!(history(&index).before(4).unwrap().version, 2);
        // Whoever names it has it again.
        assert!(index.switch(&name(), 3, None));
        assert!(index.switch(&name(), 4, None));
        assert_eq!(history(&index).before(4).unwrap().version, 3);
        assert_eq!(history(&index).before(1), None);
        assert!(!index.switch(&name(), 9, None));
        assert_eq!(history(&index).current().version, 4);
    }

    #[test]
    fn what_serves_is_found_by_its_digest() {
        let mut index = index(&["a", "b", "a"]);
        let served = |index: &Index, content: &str| {
            let digest = Digest::of(content.as_bytes());
            let found = history(index).served(digest.as_str());
            found.map(|version| version.version)
        };
        assert_eq!(served(&index, "a"), Some(3));
        assert_eq!(served(&index, "b"), Some(2));
        assert_eq!(served(&index, "c"), None);
        assert!(index.switch(&name(), 1, None));
        assert_eq!(served(&index, "a"), Some(1));
    }

    #[test]
    fn an_upload_wins_until_the_manifests_file_changes() {
        let index = index(&["a", "b"]);
        let choice = |manifest: Option<&str>| {
            let manifest = manifest.map(|content| Digest::of(content.as_bytes()));
            match history(&index).choice(manifest.as_ref()) {
                Choice::Kept(version, _) => version.version,
                Choice::Manifest(_) => 0,
                Choice::Nothing(_) => panic!("nothing serves"),
            }
        };
        assert_eq!(choice(Some("m")), 2);
        assert_eq!(choice(Some("changed")), 0);
        // The same bytes as the current version: nothing to decide.
        assert_eq!(choice(Some("b")), 0);
        assert_eq!(choice(None), 2);
    }

    #[test]
    fn going_back_counts_the_manifests_file_as_seen() {
        let mut index = index(&["a", "b"]);
        assert!(index.switch(&name(), 1, Some(Digest::of(b"b"))));
        // A build of `b` lies there still; it was left on purpose.
        let choice = history(&index).choice(Some(&Digest::of(b"b")));
        assert!(matches!(choice, Choice::Kept(kept, _) if kept.version == 1));
    }

    #[test]
    fn what_came_from_the_manifest_goes_with_it() {
        let mut index = Index::default();
        index.add(&name(), version("m", Source::Manifest), None, 10);
        assert!(matches!(history(&index).choice(None), Choice::Nothing(_)));
    }

    #[test]
    fn a_text_is_read_as_it_was_written() {
        let mut index = index(&["a", "b"]);
        assert!(index.switch(&name(), 1, None));
        assert_eq!(Index::parse(index.to_text().as_bytes()), Ok(index));
        let empty = Index::default();
        assert_eq!(Index::parse(empty.to_text().as_bytes()), Ok(empty));
    }

    #[test]
    fn any_other_text_is_damage() {
        let text = index(&["a", "b"]).to_text().into_bytes();
        for length in 0..text.len() {
            assert!(Index::parse(&text[..length]).is_err(), "cut at {length}");
        }
        for place in 0..text.len() {
            for bit in 0..8 {
                let mut flipped = text.clone();
                flipped[place] ^= 1 << bit;
                assert!(Index::parse(&flipped).is_err(), "bit {bit} of {place}");
            }
        }
    }

    #[test]
    fn a_later_format_is_told_from_damage() {
        let later = b"tidegate components 2 whatever\n{}";
        assert_eq!(Index::parse(later), Err(Unreadable::Newer(2)));
    }

    #[test]
    fn what_contradicts_itself_is_damage() {
        let signed = |body: String| {
            let sum = Digest::of(body.as_bytes());
            Index::parse(format!("{MAGIC}1 {}\n{body}", sum.as_str()).as_bytes())
        };
        let text = index(&["a", "b"]).to_text();
        let (_, body) = text.split_once('\n').unwrap();
        assert!(signed(body.to_owned()).is_ok());
        for (from, to) in [
            ("\"current\": 2", "\"current\": 3"),
            ("\"version\": 1", "\"version\": 2"),
            ("\"counter\"", "\"../counter\""),
            ("\"bytes\"", "\"octets\""),
        ] {
            let changed = body.replacen(from, to, 1);
            assert_ne!(changed, body);
            assert!(signed(changed).is_err(), "{to}");
        }
    }
}
