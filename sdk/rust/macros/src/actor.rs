//! `#[actor]`: reads an `impl` block and its arguments, and writes the implementation of the
//! trait `Actor`: the tables of methods and hooks.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::visit_mut::VisitMut;
use syn::{Error, ImplItem, Item, ItemImpl, LitInt, LitStr, Path, Result, Token, Type};

use crate::hygiene::Ungroup;
use crate::method::{self, Guard, Method, Role};
use crate::migrate::{self, Migration};
use crate::name;

#[derive(Default)]
struct Arguments {
    name: Option<LitStr>,
    events: Vec<Path>,
    hidden: Vec<LitStr>,
    version: Option<LitInt>,
}

/// The `impl` block as the author wrote it, and beside it what the macro adds or, where the
/// author erred, the errors. The block itself stays, so that one error does not cause others.
pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let mut block = match read_block(item.clone()) {
        Ok(block) => block,
        Err(error) => {
            let error = error.into_compile_error();
            return quote!(#item #error);
        }
    };
    let added = expand_block(arguments, &mut block);
    // `pub` says here that clients may call it, whether or not Rust code elsewhere can.
    quote!(#[allow(unreachable_pub)] #block #added)
}

fn read_block(item: TokenStream) -> Result<ItemImpl> {
    let block = match syn::parse2(item)? {
        Item::Impl(block) => block,
        Item::Struct(item) => {
            return Err(Error::new(
                item.ident.span(),
                format!(
                    "#[actor] goes on the `impl {0}` block; the struct itself derives `Default, \
                     Serialize, Deserialize, JsonSchema`",
                    item.ident
                ),
            ));
        }
        _ => {
            return Err(Error::new(
                Span::call_site(),
                "#[actor] goes on the `impl` block of the actor's type",
            ));
        }
    };
    if let Some((_, path, _)) = &block.trait_ {
        return Err(Error::new(
            path.span(),
            "#[actor] goes on the type's own `impl` block, not on that of a trait",
        ));
    }
    if let Some(generic) = block.generics.params.first() {
        return Err(Error::new(
            generic.span(),
            "an actor type cannot be generic: its state has one JSON Schema",
        ));
    }
    Ok(block)
}

fn expand_block(arguments: TokenStream, block: &mut ItemImpl) -> TokenStream {
    let mut unread = TokenStream::new();
    let (mut methods, mut migrations) = (Vec::new(), Vec::new());
    Ungroup.visit_type_mut(&mut block.self_ty);
    for item in &mut block.items {
        if let ImplItem::Fn(function) = item {
            Ungroup.visit_signature_mut(&mut function.sig);
            let read = match migrate::read(function) {
                Ok(Some(migration)) => {
                    migrations.push(migration);
                    Ok(None)
                }
                Ok(None) => method::read(function),
                Err(error) => Err(error),
            };
            match read {
                Ok(method) => methods.extend(method),
                Err(error) => unread.extend(error.into_compile_error()),
            }
        }
    }
    let mut errors: Option<Error> = None;
    let mut note = |error: Error| match &mut errors {
        Some(errors) => errors.combine(error),
        None => errors = Some(error),
    };
    if let Err(error) = check_distinct(&methods) {
        note(error);
    }
    if let Err(error) = check_given(&methods) {
        note(error);
    }
    if let [_, second, ..] = &migrations[..] {
        let message = "this actor already has a `#[migrate]` function";
        note(Error::new(second.span, message));
    }
    let arguments = read_arguments(arguments).unwrap_or_else(|error| {
        note(error);
        Arguments::default()
    });
    let name = actor_name(&arguments, &block.self_ty).unwrap_or_else(|error| {
        note(error);
        String::new()
    });
    let added = match errors {
        Some(errors) => errors.into_compile_error(),
        // Without it, every use of the actor would be an error beside the author's own.
        None => implementation(&name, &arguments, block, &methods, migrations.first()),
    };
    quote!(#unread #added)
}

fn read_arguments(tokens: TokenStream) -> Result<Arguments> {
    let mut arguments = Arguments::default();
    let parser = syn::meta::parser(|meta| {
        if meta.path.is_ident("name") {
            arguments.name = Some(meta.value()?.parse()?);
        } else if meta.path.is_ident("events") {
            if meta.input.peek(Token![=]) {
                arguments.events.push(meta.value()?.parse()?);
            } else {
                let content;
                syn::parenthesized!(content in meta.input);
                arguments
                    .events
                    .extend(Punctuated::<Path, Token![,]>::parse_terminated(&content)?);
            }
        } else if meta.path.is_ident("hidden") {
            let content;
            syn::parenthesized!(content in meta.input);
            arguments
                .hidden
                .extend(Punctuated::<LitStr, Token![,]>::parse_terminated(&content)?);
        } else if meta.path.is_ident("version") {
            let version: LitInt = meta.value()?.parse()?;
            version.base10_parse::<u32>().map_err(|_| {
                let expected = format!("expected a whole number from 0 to {}", u32::MAX);
                Error::new(version.span(), expected)
            })?;
            arguments.version = Some(version);
        } else {
            return Err(meta.error(
                "expected `name = \"…\"`, `events = Type`, `events(Type, …)`, \
                 `hidden(\"member\", …)` or `version = 1`",
            ));
        }
        Ok(())
    });
    parser.parse2(tokens)?;
    Ok(arguments)
}

fn actor_name(arguments: &Arguments, ty: &Type) -> Result<String> {
    if let Some(literal) = &arguments.name {
        return name::literal(literal);
    }
    let ident = match ty {
        Type::Path(path) => path.path.segments.last().map(|last| &last.ident),
        _ => None,
    };
    let Some(ident) = ident else {
        return Err(Error::new(ty.span(), "an actor is a struct or an enum"));
    };
    let name = name::camel(ident);
    name::check(&name, ident.span())?;
    Ok(name)
}

fn check_distinct(methods: &[Method]) -> Result<()> {
    let label = |method: &Method| match &method.role {
        Role::Method { name } => format!("method `{name}`"),
        Role::Hook { name } => format!("`#[{name}]` hook"),
        Role::Guard(guard) => format!("`#[{}]` function", guard.name()),
    };
    for (i, method) in methods.iter().enumerate() {
        let wanted = label(method);
        if methods[..i].iter().any(|earlier| label(earlier) == wanted) {
            return Err(Error::new(
                method.span,
                format!("this actor already has a {wanted}"),
            ));
        }
    }
    Ok(())
}

fn guard(methods: &[Method], wanted: Guard) -> Option<&Method> {
    methods
        .iter()
        .find(|method| matches!(method.role, Role::Guard(guard) if guard == wanted))
}

fn check_given(methods: &[Method]) -> Result<()> {
    match methods.iter().find(|method| method.wants_given()) {
        Some(method) if guard(methods, Guard::Before).is_none() => Err(Error::new(
            method.span,
            "this method asks for what `#[before]` returns, but the actor has no function with \
             `#[before]`",
        )),
        _ => Ok(()),
    }
}

fn implementation(
    name: &str,
    arguments: &Arguments,
    block: &ItemImpl,
    methods: &[Method],
    migration: Option<&Migration>,
) -> TokenStream {
    let ty = &*block.self_ty;
    let (events, hidden) = (&arguments.events, &arguments.hidden);
    let description = match method::description(&block.attrs) {
        Some(text) => quote!(::core::option::Option::Some(#text)),
        None => quote!(::core::option::Option::None),
    };
    let inputs = methods.iter().filter_map(|method| method.input_type(ty));
    let sent = methods.iter().filter_map(|method| method.sent_type(ty));
    let named = methods.iter().filter_map(|method| method.named(ty));
    let proxy = match ty {
        Type::Path(path) => path.path.segments.last().map(|last| &last.ident),
        _ => None,
    };
    let proxy = match proxy {
        Some(ident) => format_ident!("MethodsOf{ident}"),
        None => format_ident!("MethodsOfActor"),
    };
    let before = guard(methods, Guard::Before);
    let look = |wanted| match guard(methods, wanted) {
        Some(guard) => {
            let look = guard.entry(None);
            quote!(::core::option::Option::Some(#look))
        }
        None => quote!(::core::option::Option::None),
    };
    let (authorize, project) = (look(Guard::Authorize), look(Guard::Project));
    let recheck = match guard(methods, Guard::Authorize).and_then(Method::recheck) {
        Some(when) => quote!(::core::option::Option::Some(#when)),
        None => quote!(::core::option::Option::None),
    };
    let version = match &arguments.version {
        Some(version) => quote!(#version),
        None => quote!(0),
    };
    let migrate = match migration {
        Some(migration) => {
            let entry = migration.entry();
            quote!(::core::option::Option::Some(#entry))
        }
        None => quote!(::core::option::Option::None),
    };
    let hooks = methods
        .iter()
        .filter(|method| matches!(method.role, Role::Hook { .. }))
        .map(|method| method.entry(None));
    let methods = methods
        .iter()
        .filter(|method| matches!(method.role, Role::Method { .. }))
        .map(|method| method.entry(before));
    let event_of = events.iter().map(|event| {
        quote_spanned! {event.span()=>
            #[automatically_derived]
            impl ::tidegate_sdk::EventOf<#ty> for #event {}
        }
    });
    let implements = quote_spanned! {ty.span()=> impl ::tidegate_sdk::Actor for #ty };
    quote! {
        #[allow(
            clippy::all, clippy::pedantic, non_camel_case_types, unused, deprecated,
            missing_docs, unreachable_pub, private_interfaces, private_bounds,
        )]
        const _: () = {
            use ::tidegate_sdk::__private::{ReturnedAny as _, ReturnsAny as _};

            #(#inputs)*
            #(#sent)*

            #[doc(hidden)]
            #[must_use = "nothing happens before a method is named"]
            pub struct #proxy<__Way>(__Way);

            impl<__Way> #proxy<__Way> { #(#named)* }

            #[automatically_derived]
            impl<__Way> ::tidegate_sdk::__private::Proxy for #proxy<__Way> {
                type Way = __Way;
                fn over(way: __Way) -> Self { Self(way) }
                fn way(&mut self) -> &mut __Way { &mut self.0 }
            }

            #[automatically_derived]
            #implements {
                type Methods<__Way> = #proxy<__Way>;
                const NAME: &'static str = #name;
                const DESCRIPTION: ::core::option::Option<&'static str> = #description;
                const HIDDEN: &'static [&'static str] = &[#(#hidden),*];
                const VERSION: u32 = #version;
                const MIGRATE: ::core::option::Option<
                    ::tidegate_sdk::__private::Migrate<Self>,
                > = #migrate;
                const METHODS: &'static [::tidegate_sdk::__private::Method<Self>] =
                    &[#(#methods),*];
                const HOOKS: &'static [(
                    ::tidegate_sdk::__private::Hook,
                    ::tidegate_sdk::__private::Run<Self>,
                )] = &[#(#hooks),*];
                const AUTHORIZE: ::core::option::Option<
                    ::tidegate_sdk::__private::Look<Self, ::tidegate_sdk::Subscriber, ()>,
                > = #authorize;
                const RECHECK: ::core::option::Option<&'static str> = #recheck;
                const PROJECT: ::core::option::Option<
                    ::tidegate_sdk::__private::Look<
                        Self,
                        ::tidegate_sdk::Viewer,
                        ::tidegate_sdk::View,
                    >,
                > = #project;

                fn events() -> ::std::vec::Vec<(
                    &'static str,
                    ::tidegate_sdk::__private::Document,
                )> {
                    let mut events = ::std::vec::Vec::new();
                    #(events.extend(
                        <#events as ::tidegate_sdk::Event>::NAMES
                            .iter()
                            .copied()
                            .zip(<#events as ::tidegate_sdk::Event>::schemas()),
                    );)*
                    events
                }
            }

            #(#event_of)*

            ::core::assert!(
                ::tidegate_sdk::__private::distinct_all(
                    &[#(<#events as ::tidegate_sdk::Event>::NAMES),*]
                ),
                "two events of this actor have the same name: give one another with #[event(name = \"…\")]",
            );
        };
    }
}
