//! Writes the documentation into an OpenAPI document of `aide`.
#![expect(
    clippy::default_trait_access,
    reason = "the maps belong to a crate that is not a dependency"
)]

use aide::generate::GenContext;
use aide::openapi::{
    Components, Header, HeaderStyle, MediaType, OpenApi, Operation, Parameter, ParameterData,
    ParameterSchemaOrContent, PathItem, ReferenceOr, Response, SchemaObject, StatusCode,
};
use aide::operation::add_parameters;
use serde_json::{Value, json};

use crate::openapi::document::ApiDocument;
use crate::openapi::document::sealed::Complete;
use crate::openapi::facts::{Facts, KeyName};
use crate::openapi::operation::{
    ECHOED, KeyHeader, MARK, ProblemBody, Refusals, SCHEMA, canonical, refusals, replay_headers,
};
use crate::service::idempotency::Idempotency;
use crate::settings::dialect::Dialect;

/// Adds the marked key header, which the attribute declares by the type of the last argument.
pub(crate) fn add_key_parameter<Name: KeyName>(
    ctx: &mut GenContext,
    operation: &mut Operation,
    facts: Facts,
) {
    let mut data = key_parameter(KeyHeader::marked::<Name>(facts));
    let mark = Value::from(format!("{:x}", facts.0));
    data.extensions.insert(MARK.to_owned(), mark);
    add_parameters(ctx, operation, [in_header(data)]);
}

fn in_header(parameter_data: ParameterData) -> Parameter {
    Parameter::Header {
        parameter_data,
        style: HeaderStyle::Simple,
    }
}

fn key_parameter(header: KeyHeader) -> ParameterData {
    let mut schema = json!({
        "type": "string",
        "minLength": header.len.0,
        "maxLength": header.len.1,
    });
    if let Some(pattern) = header.pattern {
        schema["pattern"] = pattern.into();
    }
    ParameterData {
        name: header.name,
        description: Some(header.description),
        required: header.is_required,
        deprecated: None,
        format: ParameterSchemaOrContent::Schema(schema_object(schema)),
        example: None,
        examples: Default::default(),
        explode: None,
        extensions: Default::default(),
    }
}

fn schema_object(schema: Value) -> SchemaObject {
    SchemaObject {
        json_schema: schema.try_into().unwrap_or_default(),
        example: None,
        external_docs: None,
    }
}

#[cfg(feature = "aide")]
impl ApiDocument for OpenApi {}

impl Complete for OpenApi {
    fn complete(&mut self, idem: &Idempotency) {
        let mut has_schema = false;
        let components = self.components.clone().unwrap_or_default();
        let items = self
            .paths
            .iter_mut()
            .flat_map(|paths| paths.paths.values_mut());
        for path in items {
            let ReferenceOr::Item(path) = path else {
                continue;
            };
            for (operation, is_read) in operations(path) {
                let Some(facts) = take_mark(operation, &idem.settings().dialect, is_read) else {
                    continue;
                };
                if !is_read {
                    has_schema |= document_responses(operation, facts, idem, &components);
                }
            }
        }
        if let Some(body) = ProblemBody::of(idem).filter(|_| has_schema) {
            let components = self.components.get_or_insert_default();
            let schemas = &mut components.schemas;
            schemas
                .entry(SCHEMA.to_owned())
                .or_insert_with(|| problem_schema(body));
        }
    }
}

/// The operations of a path, and whether each is a read, which ignores keys.
fn operations(item: &mut PathItem) -> impl Iterator<Item = (&mut Operation, bool)> {
    let writes = [
        &mut item.post,
        &mut item.put,
        &mut item.patch,
        &mut item.delete,
    ];
    let reads = [
        &mut item.get,
        &mut item.head,
        &mut item.options,
        &mut item.trace,
    ];
    let writes = writes.into_iter().flatten().map(|write| (write, false));
    writes.chain(reads.into_iter().flatten().map(|read| (read, true)))
}

/// Replaces the marked parameter by the key header in the dialect of the service, unless the operation declares this
/// header itself. Returns the facts of the mark.
fn take_mark(operation: &mut Operation, dialect: &Dialect, is_read: bool) -> Option<Facts> {
    let mark = |parameter: &ReferenceOr<Parameter>| match parameter {
        ReferenceOr::Item(parameter) => {
            let extensions = &parameter.parameter_data_ref().extensions;
            u128::from_str_radix(extensions.get(MARK)?.as_str()?, 16).ok()
        }
        ReferenceOr::Reference { .. } => None,
    };
    let parameters = &mut operation.parameters;
    let (at, facts) = parameters
        .iter()
        .enumerate()
        .find_map(|(at, parameter)| Some((at, Facts(mark(parameter)?))))?;
    if let ReferenceOr::Item(marked) = parameters.remove(at)
        && let Some(header) = KeyHeader::new(&marked.parameter_data_ref().name, facts, dialect)
        && !is_read
        && !parameters.iter().any(|own| is_header(own, &header.name))
    {
        parameters.insert(at, ReferenceOr::Item(in_header(key_parameter(header))));
    }
    Some(facts)
}

fn is_header(parameter: &ReferenceOr<Parameter>, name: &str) -> bool {
    let ReferenceOr::Item(Parameter::Header { parameter_data, .. }) = parameter else {
        return false;
    };
    parameter_data.name.eq_ignore_ascii_case(name)
}

/// Returns whether a response has a problem as its body.
fn document_responses(
    operation: &mut Operation,
    facts: Facts,
    idem: &Idempotency,
    components: &Components,
) -> bool {
    let responses = operation.responses.get_or_insert_default();
    let dialect = &idem.settings().dialect;
    let own = responses
        .responses
        .iter_mut()
        .map(|(status, response)| (status.to_string(), response));
    let default = responses.default.iter_mut();
    let own = own.chain(default.map(|response| ("default".to_owned(), response)));
    for (status, response) in own {
        if facts.replays(&status)
            && let Some(response) = inline(response, components)
        {
            for (name, description) in replay_headers(facts, dialect) {
                add_header(response, name.as_str(), "boolean", description);
            }
        }
    }
    let mut has_schema = false;
    for (status, refusals) in refusals(facts, idem) {
        let response = responses
            .responses
            .entry(StatusCode::Code(status.as_u16()))
            .or_insert_with(|| ReferenceOr::Item(Response::default()));
        if let Some(response) = inline(response, components) {
            has_schema |= refusals.body.is_some();
            add_refusals(response, &refusals);
        }
    }
    if dialect.echoes_key() && !facts.has_own_key() {
        let default = responses.default.iter_mut();
        for response in responses.responses.values_mut().chain(default) {
            if let Some(response) = inline(response, components) {
                let name = dialect.key_header_name().as_str();
                add_header(response, name, "string", ECHOED);
            }
        }
    }
    has_schema
}

/// Returns the response itself. A response that refers to a component is copied, because the component may belong to
/// other operations too. `None` when the document does not contain the component, or when its components refer to each other in
/// a cycle.
fn inline<'a>(
    response: &'a mut ReferenceOr<Response>,
    components: &Components,
) -> Option<&'a mut Response> {
    if let ReferenceOr::Reference { reference, .. } = response {
        *response = ReferenceOr::Item(resolved(reference, components)?);
    }
    match response {
        ReferenceOr::Item(response) => Some(response),
        ReferenceOr::Reference { .. } => None,
    }
}

fn resolved<'a>(mut reference: &'a str, components: &'a Components) -> Option<Response> {
    // More steps than components are a cycle.
    for _ in 0..components.responses.len() {
        let name = reference.strip_prefix("#/components/responses/")?;
        match components.responses.get(name)? {
            ReferenceOr::Item(response) => return Some(response.clone()),
            ReferenceOr::Reference {
                reference: next, ..
            } => reference = next,
        }
    }
    None
}

fn add_refusals(response: &mut Response, refusals: &Refusals) {
    response.description = refusals.describe(&response.description);
    if let Some(body) = refusals.body {
        let schema = json!({
            "allOf": [
                { "$ref": format!("#/components/schemas/{SCHEMA}") },
                {
                    "type": "object",
                    "properties": { "code": { "type": "string", "enum": refusals.codes() } },
                },
            ],
        });
        let own = response.content.entry(body.media_type.to_owned());
        let content: &mut MediaType = own.or_default();
        // The service may declare a response of the same type.
        let schema = match content.schema.take() {
            Some(own) => json!({ "anyOf": [own.json_schema, schema] }),
            None => schema,
        };
        content.schema = Some(schema_object(schema));
    }
    for header in &refusals.headers {
        let ty = if header.is_number {
            "integer"
        } else {
            "string"
        };
        add_header(response, header.name.as_str(), ty, header.description);
    }
}

/// Adds the header unless the service has declared it.
fn add_header(response: &mut Response, name: &str, ty: &str, description: &str) {
    let is_declared = response
        .headers
        .keys()
        .any(|own| own.eq_ignore_ascii_case(name));
    if is_declared {
        return;
    }
    let header = Header {
        description: Some(description.to_owned()),
        style: HeaderStyle::Simple,
        required: false,
        deprecated: None,
        format: ParameterSchemaOrContent::Schema(schema_object(json!({ "type": ty }))),
        example: None,
        examples: Default::default(),
        extensions: Default::default(),
    };
    let name = canonical(name);
    response.headers.insert(name, ReferenceOr::Item(header));
}

fn problem_schema(body: &ProblemBody) -> SchemaObject {
    let properties = body.members.iter().map(|&(name, description, _)| {
        let member = json!({ "type": ProblemBody::type_of(name), "description": description });
        (name.to_owned(), member)
    });
    let properties: serde_json::Map<_, _> = properties.collect();
    let required = body
        .members
        .iter()
        .filter(|(_, _, is_required)| *is_required);
    let required: Vec<_> = required.map(|(name, _, _)| *name).collect();
    schema_object(json!({
        "type": "object",
        "description": body.description,
        "properties": properties,
        "required": required,
    }))
}
