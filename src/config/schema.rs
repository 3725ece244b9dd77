use serde_json::{Value as Json, json};

use super::{
    keys::File,
    table::Value,
    value::{command_schema, duration_schema},
};

/// JSON Schema (draft 2020-12) of the configuration file, by which editors complete and check it.
pub fn schema() -> Json {
    let mut schema = File::schema();
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("lastout's configuration file");
    schema["$defs"] = json!({ "duration": duration_schema(), "command": command_schema() });
    schema
}
