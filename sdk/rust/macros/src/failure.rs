//! `#[derive(Failure)]`: turns an enum of reasons, or a struct, into failures: code, message,
//! params and status.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Attribute, Data, DeriveInput, Error, Fields, Ident, LitInt, LitStr, Result};

use crate::name;

#[derive(Default)]
struct Attributes {
    prefix: Option<LitStr>,
    code: Option<LitStr>,
    message: Option<LitStr>,
    status: Option<LitInt>,
    transparent: Option<Span>,
}

fn read_attributes(attributes: &[Attribute]) -> Result<Attributes> {
    let mut read = Attributes::default();
    for attribute in attributes {
        if !attribute.path().is_ident("failure") {
            continue;
        }
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("prefix") {
                read.prefix = Some(meta.value()?.parse()?);
            } else if meta.path.is_ident("code") {
                read.code = Some(meta.value()?.parse()?);
            } else if meta.path.is_ident("message") {
                read.message = Some(meta.value()?.parse()?);
            } else if meta.path.is_ident("status") {
                let status: LitInt = meta.value()?.parse()?;
                if !(400..=599).contains(&status.base10_parse::<u16>()?) {
                    return Err(Error::new(status.span(), "a status is 400 to 599"));
                }
                read.status = Some(status);
            } else if meta.path.is_ident("transparent") {
                read.transparent = Some(meta.path.span());
            } else {
                return Err(meta.error(
                    "expected `prefix = \"…\"` (of the type), `code = \"…\"`, \
                     `message = \"…\"`, `status = 403` or `transparent`",
                ));
            }
            Ok(())
        })?;
    }
    Ok(read)
}

pub(crate) fn expand(item: DeriveInput) -> Result<TokenStream> {
    if let Some(generic) = item.generics.params.first() {
        return Err(Error::new(
            generic.span(),
            "a failure cannot be generic: its params are data",
        ));
    }
    let ident = &item.ident;
    let whole = read_attributes(&item.attrs)?;
    let mut arms = Vec::new();
    let mut conversions = Vec::new();
    match &item.data {
        Data::Struct(data) => {
            arms.push(arm(&whole, &whole, ident, quote!(#ident), &data.fields)?);
        }
        Data::Enum(data) => {
            for variant in &data.variants {
                let own = read_attributes(&variant.attrs)?;
                if let Some(prefix) = &own.prefix {
                    return Err(Error::new(
                        prefix.span(),
                        "`prefix` is for all variants: put it on the enum, or give this one \
                         a `code`",
                    ));
                }
                let variant_ident = &variant.ident;
                let path = quote!(#ident::#variant_ident);
                if let Some(span) = own.transparent {
                    let (arm, conversion) = transparent(span, ident, &path, &variant.fields)?;
                    arms.push(arm);
                    conversions.push(conversion);
                } else {
                    arms.push(arm(&whole, &own, variant_ident, path, &variant.fields)?);
                }
            }
        }
        Data::Union(_) => {
            return Err(Error::new(
                ident.span(),
                "a failure is a struct, or an enum of failures",
            ));
        }
    }
    // An enum without variants cannot be matched by reference to nothing else.
    let body = if arms.is_empty() {
        quote!(match failure {})
    } else {
        quote!(match failure { #(#arms)* })
    };
    Ok(quote! {
        #[automatically_derived]
        impl ::core::convert::From<#ident> for ::tidegate_sdk::Failure {
            #[allow(
                clippy::all, clippy::pedantic, non_shorthand_field_patterns, unused_variables,
                deprecated,
            )]
            fn from(failure: #ident) -> Self {
                #body
            }
        }
        #(#conversions)*
    })
}

fn arm(
    whole: &Attributes,
    own: &Attributes,
    ident: &Ident,
    path: TokenStream,
    fields: &Fields,
) -> Result<TokenStream> {
    if let Some(span) = own.transparent {
        return Err(Error::new(span, "only a variant can be transparent"));
    }
    let code = match (&own.code, &whole.prefix) {
        (Some(code), _) => {
            name::check_code(&code.value(), code.span())?;
            code.value()
        }
        (None, Some(prefix)) => {
            let code = format!("{}.{}", prefix.value(), name::kebab(ident));
            name::check_code(&prefix.value(), prefix.span())?;
            name::check_code(&code, ident.span())?;
            code
        }
        (None, None) => {
            return Err(Error::new(
                ident.span(),
                "a failure needs a code: `#[failure(prefix = \"chat\")]` on the type, or \
                 `#[failure(code = \"chat.forbidden\")]` here",
            ));
        }
    };
    let mut names = Vec::new();
    let mut params = Vec::new();
    match fields {
        Fields::Unit => {}
        Fields::Named(fields) => {
            for field in &fields.named {
                if let Some(ident) = &field.ident {
                    let wire = name::camel(ident);
                    let local = local(ident, own.message.as_ref());
                    params.push(quote_spanned!(field.ty.span()=> .param(#wire, &#local)));
                    names.push(quote!(#ident: #local));
                }
            }
        }
        Fields::Unnamed(fields) => {
            return Err(Error::new(
                fields.span(),
                "params have names: name the fields, `{ … }` (or mark the variant \
                 `#[failure(transparent)]` if it holds another failure)",
            ));
        }
    }
    let message = own
        .message
        .as_ref()
        .map(|text| quote_spanned!(text.span()=> .message(::std::format!(#text))));
    let status = own.status.as_ref().map(|status| quote!(.status(#status)));
    Ok(quote! {
        #path { #(#names),* } =>
            ::tidegate_sdk::Failure::new(#code) #message #status #(#params)*,
    })
}

/// The variable that holds a field: one that the `{name}` of the message finds, wherever the
/// message comes from.
fn local(field: &Ident, message: Option<&LitStr>) -> Ident {
    let mut local = field.clone();
    if let Some(message) = message {
        local.set_span(field.span().resolved_at(message.span()));
    }
    local
}

/// A variant that holds another failure: its arm, and the conversion that `?` uses.
fn transparent(
    span: Span,
    ident: &Ident,
    path: &TokenStream,
    fields: &Fields,
) -> Result<(TokenStream, TokenStream)> {
    let Fields::Unnamed(fields) = fields else {
        return Err(Error::new(
            span,
            "a transparent variant holds one failure: `Other(Failure)`",
        ));
    };
    let (1, Some(field)) = (fields.unnamed.len(), fields.unnamed.first()) else {
        return Err(Error::new(
            span,
            "a transparent variant holds one failure: `Other(Failure)`",
        ));
    };
    let ty = &field.ty;
    let arm = quote!(#path(inner) => ::core::convert::Into::into(inner),);
    let conversion = quote! {
        #[automatically_derived]
        impl ::core::convert::From<#ty> for #ident {
            fn from(inner: #ty) -> Self {
                #path(inner)
            }
        }
    };
    Ok((arm, conversion))
}
