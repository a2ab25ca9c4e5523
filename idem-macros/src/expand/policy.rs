//! Writes the policy of the endpoint from the attribute's arguments.

use proc_macro2::TokenStream;
use quote::{ToTokens as _, quote};

use crate::parse::attribute_args::AttributeArgs;
use crate::parse::fingerprint::Fingerprint;
use crate::parse::handler::Handler;
use crate::parse::request_types::{KeyType, key_type};
use crate::parse::statuses::{Status, Statuses};

/// Returns the `Policy` in the static of the handler. The runtime contains the defaults.
pub(crate) fn policy(
    args: &AttributeArgs,
    handler: &Handler,
    private: &TokenStream,
) -> TokenStream {
    let name = handler.sig.ident.to_string();
    let name = format!("::{}", name.trim_start_matches("r#"));
    let mut policy = quote! {
        #private::Policy::new(::core::concat!(::core::module_path!(), #name))
    };
    let mut set = |call: TokenStream| policy.extend(call);
    if let Some(millis) = args.ttl_millis.map(number) {
        set(quote!(.ttl_millis(#millis)));
    }
    if args.required {
        set(quote!(.required()));
    }
    if args.key.is_some() {
        let types = handler.parameters.iter().map(|it| key_type(&it.ty));
        let is_taken = types.into_iter().any(|it| it == Some(KeyType::Always));
        set(if is_taken {
            quote!(.own_key_taken())
        } else {
            quote!(.own_key())
        });
    }
    if let Some(statuses) = &args.record {
        let statuses = self::statuses(statuses, private);
        set(quote!(.record(#statuses)));
    }
    if args.record_rejections.is_some() {
        set(quote!(.record_rejections()));
    }
    if args.records_no_body {
        set(quote!(.record_no_body()));
    }
    if let Some(millis) = args.wait_millis.map(number) {
        set(quote!(.wait_millis(#millis)));
    }
    if args.hold_unknown {
        set(quote!(.hold_unknown()));
    }
    if let Some(statuses) = &args.unknown {
        let mut statuses = self::statuses(statuses, private);
        // A single code in `record` is more specific than its class in `unknown`.
        let recorded = args.record.iter().flat_map(Statuses::listed);
        for recorded in recorded {
            if let Status::Code(code) = recorded.status {
                statuses.extend(quote!(.without(#code)));
            }
        }
        set(quote!(.unknown(#statuses)));
    }
    if let Some(millis) = args.max_run_millis.map(number) {
        set(quote!(.max_run_millis(#millis)));
    }
    if let Some(fingerprint) = &args.fingerprint {
        let fingerprint = self::fingerprint(fingerprint, private);
        set(quote!(.fingerprint(#fingerprint)));
    }
    if args.transactional.is_some() {
        set(quote!(.transactional()));
    }
    policy
}

fn statuses(statuses: &Statuses, private: &TokenStream) -> TokenStream {
    match statuses {
        Statuses::All => quote!(#private::Statuses::ALL),
        Statuses::These(statuses) => {
            let each = statuses.iter().map(|listed| match listed.status {
                Status::Class(class) => quote!(.class(#class)),
                Status::Code(code) => quote!(.code(#code)),
            });
            quote!(#private::Statuses::NONE #(#each)*)
        }
    }
}

fn fingerprint(fingerprint: &Fingerprint, private: &TokenStream) -> TokenStream {
    let mode = match fingerprint {
        Fingerprint::Body => quote!(Body),
        Fingerprint::Json => quote!(JSON),
        Fingerprint::Pointers(pointers) => quote!(json_pointers(&[#(#pointers),*])),
        Fingerprint::None => quote!(WithoutBody),
    };
    quote!(#private::FingerprintMode::#mode)
}

/// Formats the number with separators, such as `86_400_000`.
fn number(number: u64) -> TokenStream {
    let digits = number.to_string();
    let mut written = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            written.push('_');
        }
        written.push(digit);
    }
    written.parse().unwrap_or_else(|_| number.to_token_stream())
}
