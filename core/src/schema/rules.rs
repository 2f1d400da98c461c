//! A schema taken apart into the rules that apply at each place, with `$ref` resolved.
//!
//! `Schema::compile` reads the rules before anything is compiled, so that a schema whose
//! references leave the document, or whose checks would cost without bound, is refused
//! first. `evaluate` and `explain` walk them.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Map, Value};

use super::assertions::{ASSERTIONS, Assertions, Part, name_steps};
use super::places::{Place, Places, percent_decoded};
use super::{
    MAX_DEPTH_IN_PLACE, MAX_EXPANSION, MAX_EXPANSION_IN_PLACE, MAX_PATTERNS, SchemaError,
    kind_of_value, push_token, shown_value,
};
use crate::json::{Json, Number};
use crate::meter::{Exhausted, Meter};
use crate::pointer::Pointer;

/// How long a chain of subschemas may be, through `$ref` and nesting.
const MAX_CHAIN: usize = 512;

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

/// The index of a rule.
pub(super) type Id = usize;

/// All rules of a schema.
pub(super) struct Rules {
    rules: Vec<Rule>,
    patterns: usize,
}

/// One subschema.
#[derive(Default)]
pub(super) struct Rule {
    /// The schema is `false`.
    pub(super) never: bool,
    /// What it says of the value itself.
    pub(super) assertions: Assertions,
    /// What tells it apart from its alternatives: a type, constants, tags.
    pub(super) shape: Shape,
    /// `$ref` and `allOf`.
    pub(super) all_of: Vec<Id>,
    pub(super) any_of: Vec<Id>,
    pub(super) one_of: Vec<Id>,
    pub(super) properties: BTreeMap<String, Id>,
    pub(super) pattern_properties: Vec<(Part, Id)>,
    pub(super) additional_properties: Option<Id>,
    pub(super) prefix_items: Vec<Id>,
    pub(super) items: Option<Id>,
    /// What few schemas have.
    pub(super) conditions: Option<Box<Conditions>>,
    /// Of an array or an object it asks nothing but a type, a size, certain members, and
    /// that each part satisfies the rules for it, each for itself.
    pub(super) is_open: bool,
    /// Several rules lead to it.
    pub(super) is_shared: bool,
    /// Numbers that satisfy it are integers.
    pub(super) wants_integer: bool,
    /// It has rules for members, or for elements.
    pub(super) has_members: bool,
    pub(super) has_elements: bool,
}

/// Rules that depend on each other or count.
#[derive(Default)]
pub(super) struct Conditions {
    pub(super) not: Option<Id>,
    pub(super) if_: Option<Id>,
    pub(super) then: Option<Id>,
    pub(super) else_: Option<Id>,
    pub(super) dependent_schemas: Vec<(String, Id)>,
    /// Also how many elements satisfy it at least and at most.
    pub(super) contains: Option<(Id, u64, u64)>,
    pub(super) property_names: Option<Id>,
    pub(super) unevaluated_properties: Option<Id>,
    pub(super) unevaluated_items: Option<Id>,
}

/// What a value must have for it to be meant as this alternative rather than another: the
/// type, the constants, and the tags, which are members with a constant or the only member
/// that there may be.
#[derive(Default)]
pub(super) struct Shape {
    pub(super) itself: Assertions,
    tags: Vec<(String, Assertions)>,
    needed: Vec<String>,
}

impl Shape {
    fn read(keywords: &Map<String, Value>) -> Shape {
        let mut shape = Shape {
            itself: Assertions::read(&pick(keywords, &["type", "enum", "const"])),
            ..Shape::default()
        };
        let Some(Value::Object(properties)) = keywords.get("properties") else {
            return shape;
        };
        let required: HashSet<&str> = match keywords.get("required") {
            Some(Value::Array(required)) => required.iter().filter_map(Value::as_str).collect(),
            _ => HashSet::new(),
        };
        for (name, schema) in properties {
            let tag = schema
                .as_object()
                .map(|schema| Assertions::read(&pick(schema, &["enum", "const"])));
            let tag = tag.filter(|tag| !tag.is_empty());
            if required.contains(name.as_str()) && (tag.is_some() || properties.len() == 1) {
                shape.needed.push(name.clone());
            }
            shape.tags.extend(tag.map(|tag| (name.clone(), tag)));
        }
        shape
    }

    /// Whether a value has it.
    pub(super) fn fits(&self, value: &Json, meter: &mut dyn Meter) -> Result<bool, Exhausted> {
        if !self.itself.hold(value, meter)? {
            return Ok(false);
        }
        let Json::Object(members) = value else {
            return Ok(true);
        };
        let needed = self.needed.iter().map(|name| name_steps(name));
        let tags = self.tags.iter().map(|(name, _)| name_steps(name));
        meter.charge(needed.chain(tags).sum())?;
        for (name, tag) in &self.tags {
            if let Some(member) = members.get(name)
                && !tag.hold(member, meter)?
            {
                return Ok(false);
            }
        }
        Ok(self.needed.iter().all(|name| members.contains(name)))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.itself.is_empty() && !self.has_tags()
    }

    /// Adds the constants, or else the types, that the shape asks for. `false` when they do
    /// not tell all that it asks of such a value.
    pub(super) fn names(&self, value: &Json, names: &mut Vec<String>) -> bool {
        self.itself.names(names) && !(self.has_tags() && value.is_object())
    }

    fn has_tags(&self) -> bool {
        !self.tags.is_empty() || !self.needed.is_empty()
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
        let mut rules = Rules {
            rules,
            patterns: reader.patterns,
        };
        if rules.patterns > MAX_PATTERNS {
            let found = rules.patterns;
            let message = format!("expected {MAX_PATTERNS} patterns at most, found {found}");
            return Err(error("", message));
        }
        rules.check_cost()?;
        rules.find_shared();
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

    /// Marks the rules that several lead to.
    fn find_shared(&mut self) {
        let mut led_to = vec![0_usize; self.rules.len()];
        for id in self.rules.iter().flat_map(Rule::edges) {
            led_to[id] += 1;
        }
        for (rule, count) in self.rules.iter_mut().zip(led_to) {
            rule.is_shared = count > 1;
        }
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
        let by_pattern = self.pattern_properties.iter();
        let by_pattern = by_pattern.filter(move |(pattern, _)| pattern.matches(name));
        exact.into_iter().chain(by_pattern.map(|(_, id)| *id))
    }

    /// What it costs to find the rules for a member of this name.
    pub(super) fn declared_steps(&self, name: &str) -> u64 {
        let patterns = self.pattern_properties.iter();
        name_steps(name)
            + patterns
                .map(|(pattern, _)| pattern.steps(name))
                .sum::<u64>()
    }

    fn in_place_edges(&self) -> Vec<Id> {
        let mut edges: Vec<Id> = [&self.all_of, &self.any_of, &self.one_of]
            .into_iter()
            .flatten()
            .copied()
            .collect();
        if let Some(more) = &self.conditions {
            edges.extend(
                [more.not, more.if_, more.then, more.else_]
                    .into_iter()
                    .flatten(),
            );
            edges.extend(more.dependent_schemas.iter().map(|(_, id)| id));
        }
        edges
    }

    fn edges(&self) -> Vec<Id> {
        let mut edges = self.in_place_edges();
        edges.extend(self.properties.values());
        edges.extend(self.pattern_properties.iter().map(|(_, id)| id));
        edges.extend(self.additional_properties);
        edges.extend(&self.prefix_items);
        edges.extend(self.items);
        if let Some(more) = &self.conditions {
            edges.extend(more.contains.map(|(id, ..)| id));
            edges.extend(more.property_names);
            edges.extend(more.unevaluated_properties);
            edges.extend(more.unevaluated_items);
        }
        edges
    }

    /// The rules that apply to the same place and may have to hold there.
    pub(super) fn in_place(&self) -> Vec<Id> {
        self.in_place_edges()
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
                let found = kind_of_value(other);
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
            let part = Part::new("pattern", &Value::from(pattern));
            rule.pattern_properties.push((part, id));
            self.patterns += 1;
        }
        rule.conditions = self.conditions(id, keywords);
        self.members(id, keywords, "$defs");

        rule.assertions = Assertions::read(keywords);
        rule.wants_integer = rule.assertions.want_integers();
        rule.shape = Shape::read(keywords);
        rule.is_open = keywords.keys().all(|name| is_open(name));
        let conditions = rule.conditions.is_some();
        rule.has_members = conditions
            || !rule.properties.is_empty()
            || !rule.pattern_properties.is_empty()
            || rule.additional_properties.is_some();
        rule.has_elements = conditions || !rule.prefix_items.is_empty() || rule.items.is_some();
        self.patterns += usize::from(keywords.contains_key("pattern"));
        Ok(rule)
    }

    fn conditions(&mut self, id: Id, keywords: &'a Map<String, Value>) -> Option<Box<Conditions>> {
        const KEYWORDS: [&str; 9] = [
            "not",
            "if",
            "then",
            "else",
            "dependentSchemas",
            "contains",
            "propertyNames",
            "unevaluatedProperties",
            "unevaluatedItems",
        ];
        if !KEYWORDS.iter().any(|name| keywords.contains_key(*name)) {
            return None;
        }
        let count = |name: &str| match Number::from(keywords.get(name)?.as_number()?) {
            Number::Natural(count) => Some(count),
            number => number.to_integer()?.as_u64(),
        };
        let dependent = self.members(id, keywords, "dependentSchemas").into_iter();
        let (least, most) = (count("minContains"), count("maxContains"));
        let contains = self.single(id, keywords, "contains");
        Some(Box::new(Conditions {
            not: self.single(id, keywords, "not"),
            if_: self.single(id, keywords, "if"),
            then: self.single(id, keywords, "then"),
            else_: self.single(id, keywords, "else"),
            dependent_schemas: dependent.map(|(name, id)| (name.to_owned(), id)).collect(),
            contains: contains.map(|id| (id, least.unwrap_or(1), most.unwrap_or(u64::MAX))),
            property_names: self.single(id, keywords, "propertyNames"),
            unevaluated_properties: self.single(id, keywords, "unevaluatedProperties"),
            unevaluated_items: self.single(id, keywords, "unevaluatedItems"),
        }))
    }

    /// Refuses keywords that would give the schema another dialect or another identity.
    fn check_identity(&self, id: Id, keywords: &Map<String, Value>) -> Result<(), SchemaError> {
        const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";
        if let Some(dialect) = keywords.get("$schema")
            && dialect.as_str().map(|uri| uri.trim_end_matches('#')) != Some(DIALECT)
        {
            let message = format!("expected {DIALECT:?}, found {}", shown_value(dialect));
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
        let refuse =
            |expected: &str| format!("expected {expected}, found {}", shown_value(reference));
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
            pointer.and_then(|_| self.root.pointer(&fragment))
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
