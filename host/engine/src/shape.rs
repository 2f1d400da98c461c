//! What a component's file is made of, counted before anything is compiled: one pass over
//! its sections that neither validates nor keeps them.
//!
//! Compiling costs time and memory by what is counted here, of which a short file can hold
//! very much. Invariant: the pass takes time and memory by the length of the file, whatever
//! the file says of itself.

use tidegate_core::failure::cut;
use tidegate_core::printable;
use wasmparser::{
    ComponentAlias, ComponentExternalKind, ComponentInstance, ComponentOuterAliasKind,
    ElementItems, Encoding, Instance, Parser, Payload,
};

use super::LoadError;
use super::config;

/// What a global takes of an instance, in bytes (wasmtime's `VMGlobalDefinition`).
const GLOBAL_BYTES: u64 = 16;
/// What a function takes that is a value somewhere (wasmtime's `VMFuncRef`).
const FUNCTION_VALUE_BYTES: u64 = 32;

/// What was found in a component's file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Shape {
    /// The names of what it imports, fit for a message.
    pub(super) imports: Vec<String>,
    /// The names of what it exports, fit for a message.
    pub(super) exports: Vec<String>,
    /// What its instances hold in the host beside their memories and tables, in bytes; an
    /// estimate from above.
    pub(super) context_bytes: usize,
}

/// What making an instance of a module or component amounts to.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    /// Types, imports, exports, instances and aliases that are gone through.
    items: u64,
    context_bytes: u64,
}

impl Cost {
    fn add(&mut self, other: Cost) {
        self.items = self.items.saturating_add(other.items);
        self.context_bytes = self.context_bytes.saturating_add(other.context_bytes);
    }

    fn or_more(self, other: Cost) -> Cost {
        Cost {
            items: self.items.max(other.items),
            context_bytes: self.context_bytes.max(other.context_bytes),
        }
    }
}

/// A module or component that is being read.
struct Open {
    encoding: Encoding,
    cost: Cost,
    /// The modules and components that it can name, by index.
    modules: Vec<Cost>,
    components: Vec<Cost>,
}

struct Counting<'a> {
    limits: &'a config::Engine,
    /// From the outermost to the innermost.
    open: Vec<Open>,
    definitions: u64,
    functions: u64,
    items: u64,
    /// More than any module or component that has been read costs: what one counts as that
    /// comes from elsewhere.
    unknown: Cost,
    shape: Shape,
}

impl Shape {
    /// Counts, and refuses what is beyond the limits.
    pub(super) fn read(bytes: &[u8], limits: &config::Engine) -> Result<Shape, LoadError> {
        let mut counting = Counting {
            limits,
            open: Vec::new(),
            definitions: 0,
            functions: 0,
            items: 0,
            unknown: Cost::default(),
            shape: Shape::default(),
        };
        for payload in Parser::new(0).parse_all(bytes) {
            let counted = payload.map_err(Stop::Invalid);
            match counted.and_then(|payload| counting.take(&payload)) {
                Ok(()) => {}
                Err(Stop::Beyond(refused)) => return Err(refused),
                Err(Stop::Invalid(error)) => {
                    let detail = error.to_string();
                    return Err(LoadError::Invalid { detail });
                }
            }
        }
        Ok(counting.shape)
    }
}

/// Why the pass ends early.
enum Stop {
    Invalid(wasmparser::BinaryReaderError),
    Beyond(LoadError),
}

impl From<wasmparser::BinaryReaderError> for Stop {
    fn from(error: wasmparser::BinaryReaderError) -> Stop {
        Stop::Invalid(error)
    }
}

fn within(what: &'static str, found: u64, setting: &'static str, limit: usize) -> Result<(), Stop> {
    match found <= limit as u64 {
        true => Ok(()),
        false => Err(Stop::Beyond(LoadError::TooComplex {
            what,
            found,
            setting,
            limit: limit as u64,
        })),
    }
}

/// A name, which nobody has looked at yet, as a message may have it.
fn shown(name: &str) -> String {
    printable::line(&cut(name)).into_owned()
}

impl Counting<'_> {
    fn take(&mut self, payload: &Payload<'_>) -> Result<(), Stop> {
        let limits = self.limits;
        match payload {
            Payload::Version { encoding, .. } => return self.begin(*encoding),
            Payload::End(_) => {
                self.end();
                return Ok(());
            }
            Payload::CodeSectionStart { count, .. } => {
                self.functions = self.functions.saturating_add((*count).into());
                let (found, limit) = (self.functions, limits.max_functions);
                return within("functions", found, "max-functions", limit);
            }
            Payload::CodeSectionEntry(body) => {
                let (found, limit) = (body.range().len() as u64, limits.max_function_bytes);
                let what = "bytes in one function";
                return within(what, found, "max-function-bytes", limit);
            }
            _ => {}
        }
        if self.open.len() == 1 {
            self.note_names(payload)?;
        }
        let Some(open) = self.open.last_mut() else {
            return Ok(());
        };
        let items = match open.encoding {
            Encoding::Module => open.module_section(payload)?,
            Encoding::Component => open.component_section(payload, self.unknown)?,
        };
        open.cost.items = open.cost.items.saturating_add(items);
        self.items = self.items.saturating_add(items);
        // What a component is instantiated for counts each time, what is only there once.
        let found = self.items.max(open.cost.items);
        let what = "types, imports, exports, instances and aliases";
        within(what, found, "max-items", limits.max_items)
    }

    /// Notes what the component itself imports and exports.
    fn note_names(&mut self, payload: &Payload<'_>) -> Result<(), Stop> {
        match payload {
            Payload::ComponentImportSection(imports) => {
                for import in imports.clone() {
                    self.shape.imports.push(shown(import?.name.name));
                }
            }
            Payload::ComponentExportSection(exports) => {
                for export in exports.clone() {
                    self.shape.exports.push(shown(export?.name.name));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn begin(&mut self, encoding: Encoding) -> Result<(), Stop> {
        self.definitions += 1;
        let limit = self.limits.max_modules;
        within(
            "modules and components",
            self.definitions,
            "max-modules",
            limit,
        )?;
        self.open.push(Open {
            encoding,
            cost: Cost::default(),
            modules: Vec::new(),
            components: Vec::new(),
        });
        let depth = self.open.len() as u64;
        let what = "components within each other";
        within(what, depth, "max-nesting", self.limits.max_nesting)
    }

    fn end(&mut self) {
        let Some(done) = self.open.pop() else {
            return;
        };
        self.unknown = self.unknown.or_more(done.cost);
        match (self.open.last_mut(), done.encoding) {
            (Some(outer), Encoding::Module) => outer.modules.push(done.cost),
            (Some(outer), Encoding::Component) => outer.components.push(done.cost),
            (None, _) => {
                let bytes = usize::try_from(done.cost.context_bytes);
                self.shape.context_bytes = bytes.unwrap_or(usize::MAX);
            }
        }
    }
}

impl Open {
    /// How many items a section of a module has.
    fn module_section(&mut self, payload: &Payload<'_>) -> Result<u64, Stop> {
        let context_bytes = &mut self.cost.context_bytes;
        Ok(match payload {
            Payload::TypeSection(types) => types.count(),
            Payload::ImportSection(imports) => imports.count(),
            Payload::TableSection(tables) => tables.count(),
            Payload::MemorySection(memories) => memories.count(),
            Payload::TagSection(tags) => tags.count(),
            Payload::DataSection(segments) => segments.count(),
            Payload::GlobalSection(globals) => {
                *context_bytes += u64::from(globals.count()) * GLOBAL_BYTES;
                globals.count()
            }
            Payload::ExportSection(exports) => {
                *context_bytes += u64::from(exports.count()) * FUNCTION_VALUE_BYTES;
                exports.count()
            }
            Payload::ElementSection(elements) => {
                for element in elements.clone() {
                    let values = match element?.items {
                        ElementItems::Functions(functions) => functions.count(),
                        ElementItems::Expressions(_, expressions) => expressions.count(),
                    };
                    *context_bytes += u64::from(values) * FUNCTION_VALUE_BYTES;
                }
                elements.count()
            }
            _ => 0,
        }
        .into())
    }

    /// How many items a section of a component has. What it makes instances of is added to its
    /// cost, and what it names in a way that cannot be followed here counts as `unknown`.
    fn component_section(&mut self, payload: &Payload<'_>, unknown: Cost) -> Result<u64, Stop> {
        Ok(match payload {
            Payload::CoreTypeSection(types) => types.count().into(),
            Payload::ComponentTypeSection(types) => types.count().into(),
            Payload::ComponentCanonicalSection(functions) => functions.count().into(),
            Payload::InstanceSection(instances) => {
                let mut items = u64::from(instances.count());
                for instance in instances.clone() {
                    if let Instance::Instantiate { module_index, args } = instance? {
                        let made = self.modules.get(module_index as usize);
                        self.cost.add(made.copied().unwrap_or(unknown));
                        items += args.len() as u64;
                    }
                }
                items
            }
            Payload::ComponentInstanceSection(instances) => {
                let mut items = u64::from(instances.count());
                for instance in instances.clone() {
                    if let ComponentInstance::Instantiate {
                        component_index,
                        args,
                    } = instance?
                    {
                        let made = self.components.get(component_index as usize);
                        self.cost.add(made.copied().unwrap_or(unknown));
                        items += args.len() as u64;
                    }
                }
                items
            }
            Payload::ComponentAliasSection(aliases) => {
                for alias in aliases.clone() {
                    use ComponentOuterAliasKind as Outer;
                    match alias? {
                        ComponentAlias::InstanceExport { kind, .. } => self.name(kind, unknown),
                        ComponentAlias::Outer { kind, .. } => match kind {
                            Outer::CoreModule => self.modules.push(unknown),
                            Outer::Component => self.components.push(unknown),
                            Outer::CoreType | Outer::Type => {}
                        },
                        ComponentAlias::CoreInstanceExport { .. } => {}
                    }
                }
                aliases.count().into()
            }
            Payload::ComponentImportSection(imports) => {
                for import in imports.clone() {
                    self.name(import?.ty.kind(), unknown);
                }
                imports.count().into()
            }
            Payload::ComponentExportSection(exports) => {
                for export in exports.clone() {
                    let export = export?;
                    let again = match export.kind {
                        ComponentExternalKind::Module => self.modules.get(export.index as usize),
                        _ => self.components.get(export.index as usize),
                    };
                    self.name(export.kind, again.copied().unwrap_or(unknown));
                }
                exports.count().into()
            }
            _ => 0,
        })
    }

    /// Something of this kind has the next index.
    fn name(&mut self, kind: ComponentExternalKind, cost: Cost) {
        match kind {
            ComponentExternalKind::Module => self.modules.push(cost),
            ComponentExternalKind::Component => self.components.push(cost),
            _ => {}
        }
    }
}
