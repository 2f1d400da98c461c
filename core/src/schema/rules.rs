//! A schema taken apart into the rules that apply at each place, with `$ref` resolved.
//!
//! `Schema::compile` reads the rules before anything is compiled, so that a schema whose
//! references leave the document, or whose checks would cost without bound, is refused
//! first. `explain` walks them.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::OnceLock;

use jsonschema::Validator;
use serde_json::{Map, Value, json};

use super::places::{Place, Places, percent_decoded};
use super::{
    MAX_DEPTH_IN_PLACE, MAX_EXPANSION, MAX_EXPANSION_IN_PLACE, MAX_PATTERNS, SchemaError, kind_of,
    options, push_token, shown,
};
use crate::pointer::Pointer;

/// How long a chain of subschemas may be, through `$ref` and nesting.
const MAX_CHAIN: usize = 512;

/// How large a condition may be, roughly, for `explain` to name it.
const MAX_CONDITION_BYTES: usize = 4_096;

/// What each keyword says about the value itself, without going into a subschema.
const ASSERTIONS: [&str; 18] = [
    "type",
    "enum",
    "const",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "pattern",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
    "required",
    "dependentRequired",
];

/// Keywords that hold one subschema for the same place of the value.
const IN_PLACE: [&str; 4] = ["not", "if", "then", "else"];
/// Keywords that hold one subschema for places further down.
const FURTHER_DOWN: [&str; 4] = [
    "contains",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
];
/// Keywords that `explain` decides as a whole, by the first of each, and what it says.
const CONDITIONS: [(&[&str], &str); 5] = [
    (&["not"], "matches what is excluded by `not`"),
    (
        &["contains", "minContains", "maxContains"],
        "the number of elements that match `contains` is wrong",
    ),
    (&["propertyNames"], "a member's name is not allowed"),
    (
        &["dependentSchemas"],
        "does not fit the members that are there",
    ),
    (
        &["if", "then", "else"],
        "does not satisfy the schema's `if`, `then` and `else`",
    ),
];

const CIRCLE: &str = "a `$ref` leads back to itself without going into a member or an element";

/// Keywords that leave a rule open (see [`Rule::is_open`]), the [`ASSERTIONS`] aside: those
/// that are followed into the parts of a value, and those that assert nothing.
const OPEN: [&str; 20] = [
    "$ref",
    "allOf",
    "properties",
    "patternProperties",
    "additionalProperties",
    "prefixItems",
    "items",
    "$schema",
    "$id",
    "$anchor",
    "$comment",
    "$defs",
    "definitions",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
];

/// The assertions that look into the parts of an array or an object.
const CLOSED: [&str; 3] = ["enum", "const", "uniqueItems"];

/// What a schema is called in the one that is made of a part of it.
const WHOLE: &str = "tidegate:whole";

/// The index of a rule.
pub(super) type Id = usize;

/// All rules of a schema.
pub(super) struct Rules {
    rules: Vec<Rule>,
    /// Where in the schema each of them stands.
    places: Places,
    patterns: usize,
}

/// One subschema.
#[derive(Default)]
pub(super) struct Rule {
    /// The schema is `false`.
    pub(super) never: bool,
    /// The assertions of [`ASSERTIONS`] that it makes.
    pub(super) assertions: Lazy,
    /// What tells it apart from its alternatives: a type, constants, tags.
    pub(super) shape: Lazy,
    /// [`CONDITIONS`], with their texts.
    pub(super) conditions: Vec<(Lazy, &'static str)>,
    /// `$ref` and `allOf`.
    pub(super) all_of: Vec<Id>,
    pub(super) any_of: Vec<Id>,
    pub(super) one_of: Vec<Id>,
    pub(super) properties: BTreeMap<String, Id>,
    pub(super) pattern_properties: Vec<(Lazy, Id)>,
    pub(super) additional_properties: Option<Id>,
    pub(super) prefix_items: Vec<Id>,
    pub(super) items: Option<Id>,
    /// Of an array or an object it asks nothing but a type, a size, certain members, and
    /// that each part satisfies the rules for it, each for itself.
    pub(super) is_open: bool,
    /// Subschemas that `explain` does not go into, at the same place and further down.
    in_place: Vec<Id>,
    further_down: Vec<Id>,
    /// The validator of this rule and all below it; compiled when a change first needs it.
    part: OnceLock<Option<Box<Validator>>>,
}

/// A part of a schema that is compiled when somebody first wants to know why a value was
/// refused; most schemas never need it.
#[derive(Default)]
pub(super) struct Lazy {
    source: Map<String, Value>,
    compiled: OnceLock<Option<Validator>>,
}

impl Lazy {
    fn new(source: Map<String, Value>) -> Lazy {
        Lazy {
            source,
            compiled: OnceLock::new(),
        }
    }

    /// The validator; `None` when there is nothing to check.
    pub(super) fn validator(&self) -> Option<&Validator> {
        if self.source.is_empty() {
            return None;
        }
        // The part is valid since the whole schema is; were it not, it would only leave
        // an explanation without this detail.
        let compile = || options().build(&Value::Object(self.source.clone())).ok();
        self.compiled.get_or_init(compile).as_ref()
    }

    pub(super) fn allows(&self, value: &Value) -> bool {
        self.validator().is_none_or(|part| part.is_valid(value))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.source.is_empty()
    }

    /// Adds the constants, or else the types, that the part asks for. `false` when they do
    /// not tell all that it asks of such a value.
    pub(super) fn names(&self, value: &Value, names: &mut Vec<String>) -> bool {
        let asked = ["const", "enum", "type"]
            .into_iter()
            .find_map(|keyword| self.source.get(keyword).map(|value| (keyword, value)));
        let has_tags = ["properties", "required"]
            .iter()
            .any(|name| self.source.contains_key(*name));
        match asked {
            Some(("const", value)) => names.push(shown(value)),
            Some(("enum", Value::Array(values))) => names.extend(values.iter().map(shown)),
            Some(("type", Value::String(kind))) => names.push(kind.clone()),
            Some(("type", Value::Array(kinds))) => {
                names.extend(kinds.iter().filter_map(Value::as_str).map(str::to_owned));
            }
            _ => return false,
        }
        !(has_tags && value.is_object())
    }
}

impl Rules {
    /// Takes a schema apart and refuses what this host does not accept. What is merely not
    /// a valid schema is left to the compiler that comes after.
    pub(super) fn read(source: &Value) -> Result<Rules, SchemaError> {
        let mut reader = Reader {
            root: source,
            known: HashMap::new(),
            found: Vec::new(),
            places: Places::default(),
            anchors: OnceCell::new(),
            patterns: 0,
        };
        reader.id_of(source, || Place::Root);
        let mut rules: Vec<Rule> = Vec::new();
        // One after the other rather than by recursion: references can make a chain as
        // long as the schema, longer than a stack.
        while let Some(schema) = reader.found.get(rules.len()) {
            rules.push(reader.rule(rules.len(), schema)?);
        }
        let rules = Rules {
            rules,
            places: reader.places,
            patterns: reader.patterns,
        };
        if rules.patterns > MAX_PATTERNS {
            let found = rules.patterns;
            let message = format!("expected {MAX_PATTERNS} patterns at most, found {found}");
            return Err(error("", message));
        }
        rules.check_cost()?;
        Ok(rules)
    }

    /// The rule of the whole schema.
    pub(super) const ROOT: Id = 0;

    pub(super) fn get(&self, id: Id) -> &Rule {
        &self.rules[id]
    }

    pub(super) fn patterns(&self) -> usize {
        self.patterns
    }

    /// The validator of a rule and all below it, in the schema that these are the rules of.
    /// `None` for one that the schema's text cannot refer to.
    pub(super) fn part(&self, id: Id, source: &Value) -> Option<&Validator> {
        let compile = || {
            let reference = self.places.reference(id)?;
            part(source, &reference).map(Box::new)
        };
        self.rules[id].part.get_or_init(compile).as_deref()
    }

    /// Refuses a schema that applies to one value in more ways than it is worth.
    fn check_cost(&self) -> Result<(), SchemaError> {
        let mut in_place = Cost::new(self, Rule::in_place_edges);
        for id in 0..self.rules.len() {
            in_place.of(id, 0)?;
        }
        let deepest = in_place
            .known
            .iter()
            .flatten()
            .map(|(_, depth)| *depth)
            .max();
        let most = in_place
            .known
            .iter()
            .flatten()
            .map(|(count, _)| *count)
            .max();
        let refuse = |message| Err(error("", message));
        if deepest.unwrap_or(0) > MAX_DEPTH_IN_PLACE {
            return refuse(format!(
                "`$ref`, `allOf` and the like nest deeper than {MAX_DEPTH_IN_PLACE} levels"
            ));
        }
        if most.unwrap_or(0) > MAX_EXPANSION_IN_PLACE {
            return refuse(format!(
                "more than {MAX_EXPANSION_IN_PLACE} subschemas apply to one place of a value"
            ));
        }
        let mut everywhere = Cost::new(self, Rule::edges);
        everywhere.cycles = Cycles::Allowed;
        if everywhere.of(Rules::ROOT, 0)?.0 > MAX_EXPANSION {
            return refuse(format!(
                "with each `$ref` followed it has more than {MAX_EXPANSION} subschemas"
            ));
        }
        Ok(())
    }
}

impl Rule {
    /// The rules for a member of this name, `additionalProperties` aside.
    pub(super) fn declared(&self, name: &str) -> impl Iterator<Item = Id> {
        let exact = self.properties.get(name).copied();
        // Without patterns, which is the rule, no value is made of the name.
        let name = (!self.pattern_properties.is_empty()).then(|| Value::from(name));
        let by_pattern = self
            .pattern_properties
            .iter()
            .filter_map(move |(pattern, id)| {
                let matches = name.as_ref().is_some_and(|name| pattern.allows(name));
                matches.then_some(*id)
            });
        exact.into_iter().chain(by_pattern)
    }

    fn in_place_edges(&self) -> Vec<Id> {
        [&self.all_of, &self.any_of, &self.one_of, &self.in_place]
            .into_iter()
            .flatten()
            .copied()
            .collect()
    }

    fn edges(&self) -> Vec<Id> {
        let mut edges = self.in_place_edges();
        edges.extend(self.properties.values());
        edges.extend(self.pattern_properties.iter().map(|(_, id)| id));
        edges.extend(self.additional_properties);
        edges.extend(&self.prefix_items);
        edges.extend(self.items);
        edges.extend(&self.further_down);
        edges
    }
}

/// Counts how often subschemas apply, and how deep they nest.
struct Cost<'a> {
    rules: &'a Rules,
    edges: fn(&Rule) -> Vec<Id>,
    cycles: Cycles,
    known: Vec<Option<(u64, usize)>>,
    open: Vec<bool>,
}

/// What a reference back to a rule that is still open means.
enum Cycles {
    /// The schema applies to itself at the same place, which says nothing.
    Refused,
    /// The schema is recursive; the crate remembers results there, so it counts once.
    Allowed,
}

impl<'a> Cost<'a> {
    fn new(rules: &'a Rules, edges: fn(&Rule) -> Vec<Id>) -> Cost<'a> {
        let count = rules.rules.len();
        Cost {
            rules,
            edges,
            cycles: Cycles::Refused,
            known: vec![None; count],
            open: vec![false; count],
        }
    }

    fn of(&mut self, id: Id, chain: usize) -> Result<(u64, usize), SchemaError> {
        if let Some(known) = self.known[id] {
            return Ok(known);
        }
        if self.open[id] {
            return match self.cycles {
                Cycles::Allowed => Ok((1, 1)),
                Cycles::Refused => Err(error("", CIRCLE.to_owned())),
            };
        }
        if chain > MAX_CHAIN {
            let message =
                format!("schemas nest deeper than {MAX_CHAIN} levels, with each `$ref` followed");
            return Err(error("", message));
        }
        self.open[id] = true;
        let (mut count, mut depth) = (1u64, 0);
        for next in (self.edges)(&self.rules.rules[id]) {
            let (more, below) = self.of(next, chain + 1)?;
            count = count.saturating_add(more);
            depth = depth.max(below);
        }
        self.open[id] = false;
        self.known[id] = Some((count, depth + 1));
        Ok((count, depth + 1))
    }
}

/// Reads rules in the order of their ids.
struct Reader<'a> {
    root: &'a Value,
    /// Ids by the address of the schema, so that each is read once.
    known: HashMap<*const Value, Id>,
    /// The schemas by their ids, and their places.
    found: Vec<&'a Value>,
    places: Places,
    /// The schemas that have an `$anchor`, found when the first is referred to.
    anchors: OnceCell<HashMap<&'a str, &'a Value>>,
    patterns: usize,
}

impl<'a> Reader<'a> {
    fn id_of(&mut self, schema: &'a Value, place: impl FnOnce() -> Place) -> Id {
        let next = self.found.len();
        *self.known.entry(schema).or_insert_with(|| {
            self.found.push(schema);
            self.places.push(place());
            next
        })
    }

    fn rule(&mut self, id: Id, schema: &'a Value) -> Result<Rule, SchemaError> {
        match schema {
            Value::Bool(allowed) => Ok(Rule {
                never: !allowed,
                ..Rule::default()
            }),
            Value::Object(keywords) => self.object_rule(id, keywords),
            other => {
                let found = kind_of(other);
                let message =
                    format!("expected a JSON Schema (an object, true or false), found {found}");
                Err(error(&self.places.pointer(id), message))
            }
        }
    }

    fn object_rule(
        &mut self,
        id: Id,
        keywords: &'a Map<String, Value>,
    ) -> Result<Rule, SchemaError> {
        self.check_identity(id, keywords)?;
        let mut rule = Rule::default();
        if let Some(reference) = keywords.get("$ref") {
            let schema = self
                .target(reference)
                .map_err(|message| self.keyword_error(id, "$ref", message))?;
            let target = || Place::Target(reference.as_str().unwrap_or_default().into());
            rule.all_of.push(self.id_of(schema, target));
        }
        rule.all_of.extend(self.list(id, keywords, "allOf"));
        rule.any_of = self.list(id, keywords, "anyOf");
        rule.one_of = self.list(id, keywords, "oneOf");
        rule.prefix_items = self.list(id, keywords, "prefixItems");
        rule.items = self.single(id, keywords, "items");
        rule.additional_properties = self.single(id, keywords, "additionalProperties");
        let properties = self.members(id, keywords, "properties");
        rule.properties = properties
            .into_iter()
            .map(|(name, id)| (name.to_owned(), id))
            .collect();
        for (pattern, id) in self.members(id, keywords, "patternProperties") {
            let source = Map::from_iter([("pattern".to_owned(), Value::from(pattern))]);
            rule.pattern_properties.push((Lazy::new(source), id));
            self.patterns += 1;
        }
        for keyword in IN_PLACE {
            rule.in_place.extend(self.single(id, keywords, keyword));
        }
        for keyword in FURTHER_DOWN {
            rule.further_down.extend(self.single(id, keywords, keyword));
        }
        let dependent = self.members(id, keywords, "dependentSchemas");
        rule.in_place
            .extend(dependent.into_iter().map(|(_, id)| id));
        self.members(id, keywords, "$defs");

        rule.assertions = Lazy::new(pick(keywords, &ASSERTIONS));
        rule.shape = Lazy::new(shape(keywords));
        rule.is_open = keywords.keys().all(|name| is_open(name));
        self.patterns += usize::from(keywords.contains_key("pattern"));
        for (names, text) in CONDITIONS {
            let mut bytes = MAX_CONDITION_BYTES;
            let is_small = |name: &&str| {
                let schema = keywords.get(*name);
                schema.is_none_or(|schema| is_self_contained(schema, &mut bytes))
            };
            if keywords.contains_key(names[0]) && names.iter().all(is_small) {
                rule.conditions
                    .push((Lazy::new(pick(keywords, names)), text));
            }
        }
        Ok(rule)
    }

    /// Refuses keywords that would give the schema another dialect or another identity.
    fn check_identity(&self, id: Id, keywords: &Map<String, Value>) -> Result<(), SchemaError> {
        const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";
        if let Some(dialect) = keywords.get("$schema")
            && dialect.as_str().map(|uri| uri.trim_end_matches('#')) != Some(DIALECT)
        {
            let message = format!("expected {DIALECT:?}, found {}", shown(dialect));
            return Err(self.keyword_error(id, "$schema", message));
        }
        if keywords.contains_key("$id") && id != Rules::ROOT {
            let message = "expected `$id` at the root of the schema only".to_owned();
            return Err(self.keyword_error(id, "$id", message));
        }
        for keyword in ["$dynamicRef", "$recursiveRef"] {
            if keywords.contains_key(keyword) {
                let message = format!("expected `$ref`, found `{keyword}`, which is not supported");
                return Err(self.keyword_error(id, keyword, message));
            }
        }
        Ok(())
    }

    /// What a `$ref` leads to, which must be in the same document, or else what is wrong.
    fn target(&self, reference: &Value) -> Result<&'a Value, String> {
        let refuse = |expected: &str| format!("expected {expected}, found {}", shown(reference));
        let fragment = reference
            .as_str()
            .and_then(|text| text.strip_prefix('#'))
            .ok_or_else(|| {
                refuse("a reference within the same schema, such as \"#/$defs/name\"")
            })?;
        let fragment = percent_decoded(fragment)
            .ok_or_else(|| refuse("a reference whose percent-encoding is valid"))?;
        let target = if fragment.is_empty() || fragment.starts_with('/') {
            let pointer = Pointer::parse(&fragment).ok();
            pointer.and_then(|pointer| pointer.resolve(self.root))
        } else {
            let anchors = self.anchors.get_or_init(|| {
                let mut anchors = HashMap::new();
                gather_anchors(self.root, &mut anchors);
                anchors
            });
            anchors.get(&*fragment).copied()
        };
        target.ok_or_else(|| refuse("a reference to a place that the schema has"))
    }

    fn single(
        &mut self,
        id: Id,
        keywords: &'a Map<String, Value>,
        keyword: &'static str,
    ) -> Option<Id> {
        let schema = keywords.get(keyword)?;
        Some(self.id_of(schema, || Place::Keyword(id, keyword)))
    }

    fn list(&mut self, id: Id, keywords: &'a Map<String, Value>, keyword: &'static str) -> Vec<Id> {
        let Some(Value::Array(schemas)) = keywords.get(keyword) else {
            return Vec::new();
        };
        let each = |(index, schema)| self.id_of(schema, || Place::Element(id, keyword, index));
        schemas.iter().enumerate().map(each).collect()
    }

    fn members(
        &mut self,
        id: Id,
        keywords: &'a Map<String, Value>,
        keyword: &'static str,
    ) -> Vec<(&'a str, Id)> {
        let Some(Value::Object(schemas)) = keywords.get(keyword) else {
            return Vec::new();
        };
        let each = |(name, schema): (&'a String, &'a Value)| {
            let place = || Place::Member(id, keyword, name.as_str().into());
            (name.as_str(), self.id_of(schema, place))
        };
        schemas.iter().map(each).collect()
    }

    fn keyword_error(&self, id: Id, keyword: &str, message: String) -> SchemaError {
        let mut pointer = self.places.pointer(id);
        push_token(&mut pointer, keyword);
        error(&pointer, message)
    }
}

/// A validator of the part of a schema that a `$ref` leads to.
fn part(source: &Value, reference: &str) -> Option<Validator> {
    let mut whole = source.as_object()?.clone();
    whole.insert("$id".to_owned(), Value::from(WHOLE));
    let part = json!({
        "$ref": format!("{WHOLE}{reference}"),
        "$defs": {"whole": whole},
    });
    options().build(&part).ok()
}

fn is_open(keyword: &str) -> bool {
    let asserts = ASSERTIONS.contains(&keyword) && !CLOSED.contains(&keyword);
    asserts || OPEN.contains(&keyword)
}

fn error(pointer: &str, message: String) -> SchemaError {
    SchemaError {
        pointer: pointer.to_owned(),
        message,
    }
}

fn pick(keywords: &Map<String, Value>, names: &[&str]) -> Map<String, Value> {
    names
        .iter()
        .filter_map(|name| keywords.get_key_value(*name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// What a value must have for it to be meant as this alternative rather than another: the
/// type, the constants, and the tags, which are members with a constant or the only member
/// that there may be.
fn shape(keywords: &Map<String, Value>) -> Map<String, Value> {
    let mut shape = pick(keywords, &["type", "enum", "const"]);
    let Some(Value::Object(properties)) = keywords.get("properties") else {
        return shape;
    };
    let required: HashSet<&str> = match keywords.get("required") {
        Some(Value::Array(required)) => required.iter().filter_map(Value::as_str).collect(),
        _ => HashSet::new(),
    };
    let mut tags = Map::new();
    let mut needed = Vec::new();
    for (name, schema) in properties {
        let tag = schema
            .as_object()
            .map(|schema| pick(schema, &["enum", "const"]));
        let tag = tag.filter(|tag| !tag.is_empty());
        if required.contains(name.as_str()) && (tag.is_some() || properties.len() == 1) {
            needed.push(Value::String(name.clone()));
        }
        if let Some(tag) = tag {
            tags.insert(name.clone(), Value::Object(tag));
        }
    }
    if !tags.is_empty() {
        shape.insert("properties".to_owned(), Value::Object(tags));
    }
    if !needed.is_empty() {
        shape.insert("required".to_owned(), Value::Array(needed));
    }
    shape
}

/// Whether a schema has no `$ref` and takes no more than these bytes, roughly. It is then
/// copied, which must not happen to large schemas at every level of their nesting.
fn is_self_contained(schema: &Value, bytes: &mut usize) -> bool {
    const NODE: usize = 16;
    let own = match schema {
        Value::String(text) => text.len(),
        Value::Object(members) => members.keys().map(String::len).sum(),
        _ => 0,
    };
    let Some(left) = bytes.checked_sub(own + NODE) else {
        return false;
    };
    *bytes = left;
    match schema {
        Value::Object(members) => {
            !members.contains_key("$ref")
                && members
                    .values()
                    .all(|member| is_self_contained(member, bytes))
        }
        Value::Array(elements) => elements.iter().all(|each| is_self_contained(each, bytes)),
        _ => true,
    }
}

/// Finds what has an `$anchor`; of two with the same name, the first.
fn gather_anchors<'a>(schema: &'a Value, anchors: &mut HashMap<&'a str, &'a Value>) {
    match schema {
        Value::Object(members) => {
            for keyword in ["$anchor", "$dynamicAnchor"] {
                if let Some(Value::String(name)) = members.get(keyword) {
                    anchors.entry(name).or_insert(schema);
                }
            }
            members
                .values()
                .for_each(|member| gather_anchors(member, anchors));
        }
        Value::Array(elements) => {
            elements
                .iter()
                .for_each(|element| gather_anchors(element, anchors));
        }
        _ => {}
    }
}
