//! Writes the documentation into an OpenAPI document of `utoipa`.

use std::marker::PhantomData;

use utoipa::IntoParams;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::response::Response;
use utoipa::openapi::schema::{
    AllOfBuilder, AnyOfBuilder, ObjectBuilder, Schema, SchemaType, Type,
};
use utoipa::openapi::{Components, ContentBuilder, Header, OpenApi, Ref, RefOr, Required};

use crate::openapi::document::ApiDocument;
use crate::openapi::document::sealed::Complete;
use crate::openapi::facts::{Facts, KeyName};
use crate::openapi::operation::{
    ECHOED, KeyHeader, MARK, ProblemBody, Refusals, SCHEMA, canonical, refusals, replay_headers,
};
use crate::service::idempotency::Idempotency;
use crate::settings::dialect::Dialect;

/// The key header, which the attribute adds to the `params` of a `#[utoipa::path]` below it.
#[derive(Debug)]
pub struct KeyParameter<const FACTS: u128, Name = ()>(PhantomData<fn() -> Name>);

impl<const FACTS: u128, Name: KeyName> IntoParams for KeyParameter<FACTS, Name> {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let mut parameter = key_parameter(KeyHeader::marked::<Name>(Facts(FACTS)));
        let mark = (MARK, format!("{FACTS:x}"));
        parameter.extensions = Some([mark].into_iter().collect());
        vec![parameter]
    }
}

fn key_parameter(header: KeyHeader) -> Parameter {
    let schema = ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(header.len.0))
        .max_length(Some(header.len.1))
        .pattern(header.pattern);
    ParameterBuilder::new()
        .name(header.name)
        .parameter_in(ParameterIn::Header)
        .required(if header.is_required {
            Required::True
        } else {
            Required::False
        })
        .description(Some(header.description))
        .schema(Some(schema))
        .build()
}

#[cfg(feature = "utoipa")]
impl ApiDocument for OpenApi {}

impl Complete for OpenApi {
    fn complete(&mut self, idem: &Idempotency) {
        let components = self.components.get_or_insert_with(Components::default);
        let mut has_schema = false;
        for item in self.paths.paths.values_mut() {
            for (operation, is_read) in operations(item) {
                let Some(facts) = take_mark(operation, &idem.settings().dialect, is_read) else {
                    continue;
                };
                if !is_read {
                    has_schema |= document_responses(operation, facts, idem, components);
                }
            }
        }
        if let Some(body) = ProblemBody::of(idem).filter(|_| has_schema) {
            let schemas = &mut components.schemas;
            schemas
                .entry(SCHEMA.to_owned())
                .or_insert_with(|| problem_schema(body));
        }
        if *components == Components::default() {
            self.components = None;
        }
    }
}

/// Returns whether a response has a problem as its body.
fn document_responses(
    operation: &mut Operation,
    facts: Facts,
    idem: &Idempotency,
    components: &Components,
) -> bool {
    let responses = &mut operation.responses.responses;
    let dialect = &idem.settings().dialect;
    for (status, response) in responses.iter_mut() {
        if facts.replays(status)
            && let Some(response) = inline(response, components)
        {
            for (name, description) in replay_headers(facts, dialect) {
                let header = described(Type::Boolean, description);
                add_header(response, name.as_str(), header);
            }
        }
    }
    let mut has_schema = false;
    for (status, refusals) in refusals(facts, idem) {
        let response = responses
            .entry(status.as_str().to_owned())
            .or_insert_with(|| RefOr::T(Response::new("")));
        if let Some(response) = inline(response, components) {
            has_schema |= refusals.body.is_some();
            add_refusals(response, &refusals);
        }
    }
    if dialect.echoes_key() && !facts.has_own_key() {
        for response in responses.values_mut() {
            if let Some(response) = inline(response, components) {
                let header = described(Type::String, ECHOED);
                add_header(response, dialect.key_header_name().as_str(), header);
            }
        }
    }
    has_schema
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
    let parameters = operation.parameters.as_mut()?;
    let mark = |parameter: &RefOr<Parameter>| match parameter {
        RefOr::T(parameter) => {
            let mark = parameter.extensions.as_ref()?.get(MARK)?.as_str()?;
            u128::from_str_radix(mark, 16).ok()
        }
        RefOr::Ref(_) => None,
    };
    let (at, facts) = parameters
        .iter()
        .enumerate()
        .find_map(|(at, parameter)| Some((at, Facts(mark(parameter)?))))?;
    if let RefOr::T(marked) = parameters.remove(at)
        && let Some(header) = KeyHeader::new(&marked.name, facts, dialect)
        && !is_read
        && !parameters.iter().any(|own| is_header(own, &header.name))
    {
        parameters.insert(at, RefOr::T(key_parameter(header)));
    }
    if parameters.is_empty() {
        operation.parameters = None;
    }
    Some(facts)
}

fn is_header(parameter: &RefOr<Parameter>, name: &str) -> bool {
    let RefOr::T(parameter) = parameter else {
        return false;
    };
    matches!(parameter.parameter_in, ParameterIn::Header)
        && parameter.name.eq_ignore_ascii_case(name)
}

/// Returns the response itself. A response that refers to a component is copied, because the component may belong to
/// other operations too. `None` when the document does not contain the component, or when its components refer to each other in
/// a cycle.
fn inline<'a>(
    response: &'a mut RefOr<Response>,
    components: &Components,
) -> Option<&'a mut Response> {
    if let RefOr::Ref(reference) = response {
        *response = RefOr::T(resolved(reference, components)?);
    }
    match response {
        RefOr::T(response) => Some(response),
        RefOr::Ref(_) => None,
    }
}

fn resolved<'a>(mut reference: &'a Ref, components: &'a Components) -> Option<Response> {
    // More steps than components are a cycle.
    for _ in 0..components.responses.len() {
        let name = reference
            .ref_location
            .strip_prefix("#/components/responses/")?;
        match components.responses.get(name)? {
            RefOr::T(response) => return Some(response.clone()),
            RefOr::Ref(next) => reference = next,
        }
    }
    None
}

fn add_refusals(response: &mut Response, refusals: &Refusals) {
    response.description = refusals.describe(&response.description);
    if let Some(body) = refusals.body {
        let code = ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some(refusals.codes()));
        let schema = AllOfBuilder::new()
            .item(Ref::from_schema_name(SCHEMA))
            .item(ObjectBuilder::new().property("code", code));
        let own = response.content.entry(body.media_type.to_owned());
        let own = own.or_insert_with(|| ContentBuilder::new().build().into());
        if let RefOr::T(content) = own {
            // The service may declare a response of the same type.
            content.schema = Some(match content.schema.take() {
                Some(own) => AnyOfBuilder::new().item(own).item(schema).into(),
                None => schema.into(),
            });
        }
    }
    for header in &refusals.headers {
        let ty = if header.is_number {
            Type::Integer
        } else {
            Type::String
        };
        let described = described(ty, header.description);
        add_header(response, header.name.as_str(), described);
    }
}

/// Adds the header unless the service has declared it.
fn add_header(response: &mut Response, name: &str, header: Header) {
    let is_declared = response
        .headers
        .keys()
        .any(|own| own.eq_ignore_ascii_case(name));
    if !is_declared {
        response.headers.insert(canonical(name), RefOr::T(header));
    }
}

fn described(ty: Type, description: &str) -> Header {
    HeaderBuilder::new()
        .schema(Some(ObjectBuilder::new().schema_type(SchemaType::new(ty))))
        .description(Some(description))
        .build()
}

fn problem_schema(body: &ProblemBody) -> RefOr<Schema> {
    let mut schema = ObjectBuilder::new()
        .schema_type(Type::Object)
        .description(Some(body.description));
    for &(name, description, is_required) in body.members {
        let ty = match ProblemBody::type_of(name) {
            "integer" => Type::Integer,
            _ => Type::String,
        };
        let member = ObjectBuilder::new()
            .schema_type(SchemaType::new(ty))
            .description(Some(description));
        schema = schema.property(name, member);
        if is_required {
            schema = schema.required(name);
        }
    }
    RefOr::T(schema.build().into())
}
