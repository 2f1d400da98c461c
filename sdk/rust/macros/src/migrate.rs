//! `#[migrate]`, the function of an actor's `impl` block that makes its state from one of
//! another version, and `#[self_test]`, the function that tells whether a component is fit to
//! serve. Neither is a turn: they have no context.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::visit_mut::VisitMut;
use syn::{Error, FnArg, Ident, ImplItemFn, ItemFn, Result, ReturnType, Signature, Type};

use crate::hygiene::Ungroup;
use crate::method::reference_to;

const MIGRATE: &str = "migrate";

const EXPECTED: &str =
    "`#[migrate]` is `fn name(stored: &Stored) -> Self`, or with a `Result<Self, E>`";

/// The function that makes the actor's state from one of another version.
pub(crate) struct Migration {
    pub(crate) span: Span,
    ident: Ident,
    output: Type,
}

/// Reads a function that is marked `#[migrate]`, and removes the mark. `None` for another.
pub(crate) fn read(function: &mut ImplItemFn) -> Result<Option<Migration>> {
    let marks = function.attrs.iter();
    let Some(place) = { marks }.position(|attribute| attribute.path().is_ident(MIGRATE)) else {
        return Ok(None);
    };
    let mark = function.attrs.remove(place);
    mark.meta.require_path_only()?;
    let signature = &function.sig;
    check_plain(signature, "migrate")?;
    let takes_stored = match signature.inputs.first() {
        Some(FnArg::Typed(first)) => reference_to(&first.ty, "Stored") == Some(false),
        Some(FnArg::Receiver(_)) | None => false,
    };
    if !takes_stored || signature.inputs.len() != 1 {
        return Err(Error::new(signature.ident.span(), EXPECTED));
    }
    let ReturnType::Type(_, output) = &signature.output else {
        return Err(Error::new(signature.ident.span(), EXPECTED));
    };
    Ok(Some(Migration {
        span: signature.ident.span(),
        ident: signature.ident.clone(),
        output: (**output).clone(),
    }))
}

fn check_plain(signature: &Signature, mark: &str) -> Result<()> {
    let odd = signature.asyncness.as_ref().map(Spanned::span);
    let odd = odd.or(signature.unsafety.as_ref().map(Spanned::span));
    let odd = odd.or(signature.generics.params.first().map(Spanned::span));
    match odd {
        Some(span) => Err(Error::new(
            span,
            format!("`#[{mark}]` is a plain function: not `async`, `unsafe` or generic"),
        )),
        None => Ok(()),
    }
}

impl Migration {
    /// The function as the host's question is answered.
    pub(crate) fn entry(&self) -> TokenStream {
        let function = &self.ident;
        quote_spanned! {self.output.span()=>
            |stored| {
                let made: Self = ::tidegate_sdk::__private::Returned(
                    Self::#function(stored)
                ).split()?;
                ::core::result::Result::Ok(made)
            }
        }
    }
}

/// The function as the author wrote it, and beside it the component's export.
pub(crate) fn expand_self_test(arguments: TokenStream, item: TokenStream) -> TokenStream {
    match self_test(arguments, item.clone()) {
        Ok(added) => quote!(#item #added),
        Err(error) => {
            let error = error.into_compile_error();
            quote!(#item #error)
        }
    }
}

fn self_test(arguments: TokenStream, item: TokenStream) -> Result<TokenStream> {
    if !arguments.is_empty() {
        return Err(Error::new_spanned(
            arguments,
            "`#[self_test]` takes no arguments",
        ));
    }
    let mut function: ItemFn = syn::parse2(item)?;
    Ungroup.visit_signature_mut(&mut function.sig);
    let signature = &function.sig;
    check_plain(signature, "self_test")?;
    if let Some(input) = signature.inputs.first() {
        return Err(Error::new_spanned(
            input,
            "`#[self_test]` takes nothing: it runs on a new instance, outside any turn",
        ));
    }
    let ident = &signature.ident;
    let span = match &signature.output {
        ReturnType::Default => ident.span(),
        ReturnType::Type(_, ty) => ty.span(),
    };
    let check = quote_spanned! {span=>
        fn outcome() -> ::core::result::Result<(), ::tidegate_sdk::Failure> {
            #[allow(unused_imports)]
            use ::tidegate_sdk::__private::ReturnedAny as _;
            #[allow(clippy::unit_arg)]
            let nothing: () = ::tidegate_sdk::__private::Returned(#ident()).split()?;
            ::core::result::Result::Ok(nothing)
        }
    };
    Ok(quote! {
        const _: () = {
            #[allow(dead_code)]
            #check

            #[cfg(target_family = "wasm")]
            struct SelfTest;

            #[cfg(target_family = "wasm")]
            impl ::tidegate_sdk::bindings::probe::exports::tidegate::realtime::self_test::Guest
                for SelfTest
            {
                fn check() -> ::core::result::Result<
                    (),
                    ::tidegate_sdk::bindings::tidegate::realtime::types::Failure,
                > {
                    ::tidegate_sdk::__private::tested(outcome())
                }
            }

            #[cfg(target_family = "wasm")]
            ::tidegate_sdk::bindings::probe::export!(
                SelfTest with_types_in ::tidegate_sdk::bindings::probe
            );
        };
    })
}
