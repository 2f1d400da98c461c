//! `#[derive(Event)]`: a name, a payload and a schema for each variant of an enum, or for a
//! struct.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{
    Attribute, Data, DataEnum, DeriveInput, Error, Fields, Ident, Lifetime, LitStr, Result, Variant,
};

use crate::method;
use crate::name;

pub(crate) fn expand(item: DeriveInput) -> Result<TokenStream> {
    if let Some(generic) = item.generics.params.first() {
        return Err(Error::new(
            generic.span(),
            "an event type cannot be generic: it is declared in the manifest",
        ));
    }
    match &item.data {
        Data::Enum(data) => expand_enum(&item, data),
        Data::Struct(_) => expand_struct(&item),
        Data::Union(_) => Err(Error::new(
            item.ident.span(),
            "an event is a struct, or an enum of events",
        )),
    }
}

/// The name on the wire: from `#[event(name = "…")]`, or the Rust name in lower camelCase.
fn wire_name(attributes: &[Attribute], ident: &Ident) -> Result<String> {
    let mut given: Option<LitStr> = None;
    for attribute in attributes {
        if attribute.path().is_ident("event") {
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("name") {
                    given = Some(meta.value()?.parse()?);
                    Ok(())
                } else {
                    Err(meta.error("expected `name = \"…\"`"))
                }
            })?;
        }
    }
    match given {
        Some(literal) => name::literal(&literal),
        None => {
            let name = name::camel(ident);
            name::check(&name, ident.span())?;
            Ok(name)
        }
    }
}

fn expand_struct(item: &DeriveInput) -> Result<TokenStream> {
    let ident = &item.ident;
    let name = wire_name(&item.attrs, ident)?;
    let this = Ident::new("self", ident.span());
    let payload = quote_spanned! {ident.span()=>
        ::tidegate_sdk::__private::serde_json::to_string(#this)
    };
    let schema = quote_spanned! {ident.span()=>
        ::tidegate_sdk::__private::schema::of::<#ident>()
    };
    Ok(quote! {
        #[automatically_derived]
        impl ::tidegate_sdk::Event for #ident {
            const NAMES: &'static [&'static str] = &[#name];

            fn name(&self) -> &'static str {
                #name
            }

            fn payload(
                &#this,
            ) -> ::core::result::Result<
                ::std::string::String,
                ::tidegate_sdk::__private::serde_json::Error,
            > {
                #payload
            }

            fn schemas() -> ::std::vec::Vec<::tidegate_sdk::__private::Document> {
                ::std::vec![#schema]
            }
        }
    })
}

/// What the macro writes for one variant.
struct Arm {
    name: String,
    /// Matches the variant, with nothing bound.
    pattern: TokenStream,
    /// A match arm that gives the payload.
    payload: TokenStream,
    schema: TokenStream,
    /// The type of the payload, where the variant has fields of its own.
    payload_type: Option<TokenStream>,
}

fn expand_enum(item: &DeriveInput, data: &DataEnum) -> Result<TokenStream> {
    if data.variants.is_empty() {
        return Err(Error::new(item.ident.span(), "this has no events"));
    }
    let mut arms: Vec<Arm> = Vec::new();
    for variant in &data.variants {
        let arm = expand_variant(variant)?;
        if arms.iter().any(|earlier| earlier.name == arm.name) {
            return Err(Error::new(
                variant.ident.span(),
                format!("there already is an event `{}`", arm.name),
            ));
        }
        arms.push(arm);
    }
    let ident = &item.ident;
    let names: Vec<&String> = arms.iter().map(|arm| &arm.name).collect();
    let patterns = arms.iter().map(|arm| &arm.pattern);
    let payloads = arms.iter().map(|arm| &arm.payload);
    let schemas = arms.iter().map(|arm| &arm.schema);
    let payload_types = arms.iter().filter_map(|arm| arm.payload_type.as_ref());
    Ok(quote! {
        #[allow(clippy::all, clippy::pedantic, non_camel_case_types, deprecated)]
        const _: () = {
            #(#payload_types)*

            #[automatically_derived]
            impl ::tidegate_sdk::Event for #ident {
                const NAMES: &'static [&'static str] = &[#(#names),*];

                fn name(&self) -> &'static str {
                    match self {
                        #(#patterns => #names,)*
                    }
                }

                fn payload(
                    &self,
                ) -> ::core::result::Result<
                    ::std::string::String,
                    ::tidegate_sdk::__private::serde_json::Error,
                > {
                    match self {
                        #(#payloads)*
                    }
                }

                fn schemas() -> ::std::vec::Vec<::tidegate_sdk::__private::Document> {
                    ::std::vec![#(#schemas),*]
                }
            }
        };
    })
}

fn expand_variant(variant: &Variant) -> Result<Arm> {
    let ident = &variant.ident;
    let name = wire_name(&variant.attrs, ident)?;
    let description = match method::description(&variant.attrs) {
        Some(text) => quote!(::core::option::Option::Some(#text)),
        None => quote!(::core::option::Option::None),
    };
    let (payload, schema, payload_type);
    match &variant.fields {
        Fields::Unit => {
            payload = quote! {
                Self::#ident => ::core::result::Result::Ok(::std::string::String::from("null")),
            };
            schema = quote!(::tidegate_sdk::__private::schema::of::<()>());
            payload_type = None;
        }
        Fields::Unnamed(fields) if fields.unnamed.len() == 1 => {
            let ty = &fields.unnamed[0].ty;
            let content = Ident::new("content", ty.span());
            let encode = quote_spanned! {ty.span()=>
                ::tidegate_sdk::__private::serde_json::to_string(#content)
            };
            payload = quote!(Self::#ident(#content) => #encode,);
            schema = quote_spanned! {ty.span()=>
                ::tidegate_sdk::__private::schema::of::<#ty>()
            };
            payload_type = None;
        }
        Fields::Unnamed(fields) => {
            return Err(Error::new(
                fields.span(),
                "a payload with several parts is an object: name the fields, `{ … }`",
            ));
        }
        Fields::Named(fields) => {
            let payload_ident = format_ident!("{}Payload", ident);
            let mut declared = Vec::new();
            let mut names = Vec::new();
            for field in &fields.named {
                let (field_ident, ty) = (&field.ident, &field.ty);
                let Some(field_ident) = field_ident else {
                    continue;
                };
                let attributes = field.attrs.iter().filter(|attribute| {
                    ["doc", "serde", "schemars"]
                        .iter()
                        .any(|name| attribute.path().is_ident(name))
                });
                let lifetime = Lifetime::new("'a", Span::call_site());
                let reference = quote_spanned!(ty.span()=> &#lifetime #ty);
                declared.push(quote! {
                    #(#attributes)*
                    #field_ident: #reference
                });
                names.push(field_ident);
            }
            // An object without fields needs no lifetime.
            let lifetime = (!names.is_empty()).then(|| quote!(<'a>));
            payload_type = Some(quote! {
                #[derive(
                    ::tidegate_sdk::__private::serde::Serialize,
                    ::tidegate_sdk::__private::schemars::JsonSchema,
                )]
                #[serde(
                    crate = "::tidegate_sdk::__private::serde",
                    rename_all = "camelCase",
                )]
                #[schemars(crate = "::tidegate_sdk::__private::schemars")]
                struct #payload_ident #lifetime { #(#declared),* }
            });
            payload = quote! {
                Self::#ident { #(#names),* } =>
                    ::tidegate_sdk::__private::serde_json::to_string(
                        &#payload_ident { #(#names),* }
                    ),
            };
            schema = quote!(::tidegate_sdk::__private::schema::of::<#payload_ident>());
        }
    }
    Ok(Arm {
        name,
        pattern: quote!(Self::#ident { .. }),
        payload,
        schema: quote!(::tidegate_sdk::__private::schema::described(#schema, #description)),
        payload_type,
    })
}
