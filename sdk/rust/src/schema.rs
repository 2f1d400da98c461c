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
    let mut schema = schema.to_value();
    bound_integers(&mut schema);
    schema
}

/// Says of integers how large their Rust types are, so that what the schema admits is what can
/// be decoded, and a caller is told which number is too large, and where.
fn bound_integers(schema: &mut Value) {
    match schema {
        Value::Object(keywords) => {
            let is_integer = match keywords.get("type") {
                Some(Value::Array(types)) => types.iter().any(|name| name == "integer"),
                Some(name) => name == "integer",
                None => false,
            };
            let format = keywords.get("format").and_then(Value::as_str);
            if let Some((least, most)) = format.filter(|_| is_integer).and_then(range) {
                keywords.entry("minimum").or_insert(least);
                keywords.entry("maximum").or_insert(most);
            }
            keywords.values_mut().for_each(bound_integers);
        }
        Value::Array(parts) => parts.iter_mut().for_each(bound_integers),
        _ => {}
    }
}

/// The range of a type that `schemars` names as a format.
fn range(format: &str) -> Option<(Value, Value)> {
    Some(match format {
        "int32" => (i32::MIN.into(), i32::MAX.into()),
        "uint32" => (u32::MIN.into(), u32::MAX.into()),
        "int64" => (i64::MIN.into(), i64::MAX.into()),
        "uint64" => (u64::MIN.into(), u64::MAX.into()),
        "int" => (isize::MIN.into(), isize::MAX.into()),
        "uint" => (usize::MIN.into(), usize::MAX.into()),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_bounded_by_their_types() {
        #[derive(serde::Deserialize, JsonSchema)]
        #[expect(dead_code, reason = "its schema is looked at")]
        struct Numbers {
            count: u64,
            change: Option<i32>,
            format: f64,
        }
        let schema = of_input::<Numbers>();
        let properties = &schema["properties"];
        assert_eq!(properties["count"]["maximum"], u64::MAX);
        assert_eq!(properties["count"]["minimum"], 0);
        assert_eq!(properties["change"]["minimum"], i32::MIN);
        assert!(properties["format"].get("maximum").is_none());
    }
}
