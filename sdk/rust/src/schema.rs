//! JSON Schemas of Rust types as the manifest wants them: draft 2020-12, `$ref` only into
//! the schema's own `$defs`, and no titles that nobody wrote.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

/// A JSON document.
pub type Document = Value;

/// The schema of what `T` serialises to.
pub fn of<T: JsonSchema>() -> Document {
    generate::<T>(SchemaSettings::draft2020_12().for_serialize())
}

/// The schema of what `T` is deserialised from: members with a default need not be there.
pub fn of_input<T: JsonSchema>() -> Document {
    generate::<T>(SchemaSettings::draft2020_12().for_deserialize())
}

/// The schema of an object of parameters. When none of them is required, the input may also
/// be absent, which hosts check as `null`.
pub fn of_parameters<T: JsonSchema>() -> Document {
    let mut schema = of_input::<T>();
    let required = schema.get("required").and_then(Value::as_array);
    if required.is_none_or(Vec::is_empty) {
        schema["type"] = serde_json::json!(["object", "null"]);
    }
    schema
}

/// The schema with a description, unless it has its own.
pub fn described(mut schema: Document, description: Option<&str>) -> Document {
    if let (Some(text), Some(schema)) = (description, schema.as_object_mut()) {
        schema.entry("description").or_insert_with(|| text.into());
    }
    schema
}

fn generate<T: JsonSchema>(settings: SchemaSettings) -> Document {
    let mut generator = settings.into_generator();
    let mut schema = T::json_schema(&mut generator);
    let definitions = generator.take_definitions(true);
    if !definitions.is_empty() {
        schema.insert("$defs".to_owned(), Value::Object(definitions));
    }
    schema.to_value()
}
