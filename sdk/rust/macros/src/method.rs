//! One function of an actor's `impl` block: what kind it is, how its parameters come from
//! the wire, and the code that calls it.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::visit_mut::{self, VisitMut};
use syn::{
    Attribute, Error, Expr, ExprLit, FnArg, Ident, ImplItemFn, Lit, LitStr, Meta, Pat, Receiver,
    Result, ReturnType, Type, Visibility,
};

use crate::hygiene::internal;
use crate::name;

mod clock;
mod guard;
mod proxy;

use clock::Clock;
pub(crate) use guard::Guard;

const HOOKS: [&str; 4] = ["activate", "deactivate", "connect", "disconnect"];

/// What a function is to the host.
pub(crate) enum Role {
    Method { name: String },
    Hook { name: Ident },
    Guard(Guard),
}

/// A function that the host can reach.
pub(crate) struct Method {
    pub(crate) role: Role,
    pub(crate) span: Span,
    description: Option<String>,
    cfg: Vec<Attribute>,
    ident: Ident,
    access: Access,
    clock: Clock,
    parameters: Vec<Parameter>,
    output: ReturnType,
    recheck: Option<&'static str>,
}

#[derive(Clone, Copy, PartialEq)]
enum Access {
    Read,
    Write,
    Tracked { mutable: bool },
    Live,
}

enum Parameter {
    Context {
        mutable: bool,
    },
    /// What a guard decides about.
    Asked,
    /// What `#[before]` has returned.
    Given {
        ty: Type,
        by_reference: bool,
    },
    Whole {
        ty: Type,
    },
    Member(Member),
}

struct Member {
    ident: Ident,
    ty: Type,
    attributes: Vec<Attribute>,
}

/// Reads a function and removes from it what only the macro understands. `None` for one
/// that is the author's own business.
pub(crate) fn read(function: &mut ImplItemFn) -> Result<Option<Method>> {
    let given = guard::take_given(&mut function.sig);
    let own = take_attributes(&mut function.attrs)?;
    let reached = own.mark.is_some() || matches!(function.vis, Visibility::Public(_));
    let has_access = match function.sig.inputs.first() {
        Some(FnArg::Receiver(_)) => true,
        Some(FnArg::Typed(first)) => tracked(&first.ty).or(live(&first.ty)).is_some(),
        None => false,
    };
    if !reached || !has_access {
        if let Some(span) = own.span() {
            return Err(Error::new(
                span,
                if has_access {
                    "only a `pub fn` is a method: make it public"
                } else if own.mark.as_ref().and_then(Guard::named).is_some() {
                    "this needs `&self` or `state: &Tracked<Self>` as the first parameter"
                } else {
                    "this needs `&self`, `&mut self` or `state: &mut Tracked<Self>` as the first \
                     parameter"
                },
            ));
        }
        if let Some(span) = given.iter().flatten().next() {
            return Err(Error::new(
                *span,
                "only a method that clients call is given what `#[before]` returns",
            ));
        }
        return Ok(None);
    }

    let signature = &mut function.sig;
    check_signature(signature)?;
    let guard = own.mark.as_ref().and_then(Guard::named);
    if let Some(guard) = guard {
        guard::check(guard, signature, &own)?;
    }
    let mut inputs = signature.inputs.iter_mut();
    let access = match inputs.next() {
        Some(FnArg::Receiver(receiver)) => receiver_access(receiver)?,
        Some(FnArg::Typed(first)) => match live(&first.ty) {
            Some(true) => Access::Live,
            Some(false) => {
                return Err(Error::new_spanned(
                    &first.ty,
                    "a streaming method changes the state: take `&mut Live<Self>`",
                ));
            }
            None => Access::Tracked {
                mutable: tracked(&first.ty) == Some(true),
            },
        },
        None => return Ok(None),
    };
    let mut parameters = Vec::new();
    for (input, given) in inputs.zip(given.into_iter().skip(1)) {
        if let FnArg::Typed(parameter) = input {
            parameters.push(match (guard, given) {
                (Some(guard), None) => guard::read_parameter(guard, parameter)?,
                (Some(guard), Some(span)) => return Err(Error::new(span, guard.parameters())),
                (None, Some(_)) => guard::read_given(parameter)?,
                (None, None) => read_parameter(parameter)?,
            });
        }
    }
    check_parameters(&parameters, signature.ident.span())?;
    let is_method = own.mark.is_none();
    if let (false, Some(span)) = (is_method, own.clock.span()) {
        return Err(Error::new(span, "only a method has this"));
    }
    if access == Access::Live {
        let context = |parameter: &Parameter| matches!(parameter, Parameter::Context { .. });
        if let Some(at) = parameters.iter().position(context) {
            return Err(Error::new_spanned(
                &signature.inputs[at + 1],
                "the context of a streaming method comes from its state: `state.ctx()`",
            ));
        }
        if !is_method {
            return Err(Error::new_spanned(
                &signature.inputs[0],
                "only a method streams: take `&mut self`",
            ));
        }
    }
    own.clock.check(access, &parameters, signature)?;

    let role = match (guard, own.mark) {
        (Some(guard), _) => Role::Guard(guard),
        (None, Some(name)) => {
            let wire = |parameter: &Parameter| !matches!(parameter, Parameter::Context { .. });
            if let Some(at) = parameters.iter().position(wire) {
                return Err(Error::new_spanned(
                    &signature.inputs[at + 1],
                    "a hook has no input: it takes the state and `ctx: &mut Context<Self>`",
                ));
            }
            Role::Hook { name }
        }
        (None, None) => {
            let name = match own.name {
                Some(literal) => name::literal(&literal)?,
                None => {
                    let name = name::camel(&signature.ident);
                    name::check(&name, signature.ident.span())?;
                    name
                }
            };
            Role::Method { name }
        }
    };
    Ok(Some(Method {
        role,
        span: signature.ident.span(),
        description: description(&function.attrs),
        cfg: own.cfg,
        ident: signature.ident.clone(),
        access,
        clock: own.clock,
        parameters,
        output: signature.output.clone(),
        recheck: own.recheck,
    }))
}

#[derive(Default)]
struct OwnAttributes {
    /// That it is a hook or a guard, and which.
    mark: Option<Ident>,
    /// When a guard is asked again.
    recheck: Option<&'static str>,
    name: Option<LitStr>,
    method: Option<Span>,
    clock: Clock,
    cfg: Vec<Attribute>,
}

impl OwnAttributes {
    fn span(&self) -> Option<Span> {
        let mark = self.mark.as_ref().map(Ident::span);
        mark.or(self.method).or(self.clock.span())
    }
}

fn take_attributes(attributes: &mut Vec<Attribute>) -> Result<OwnAttributes> {
    let mut own = OwnAttributes::default();
    let mut error: Option<Error> = None;
    attributes.retain(|attribute| {
        let result = if attribute.path().is_ident("method") {
            own.method = Some(attribute.path().span());
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("name") {
                    own.name = Some(meta.value()?.parse()?);
                    Ok(())
                } else {
                    Err(meta.error("expected `name = \"…\"`"))
                }
            })
        } else if let Some(ident) = attribute.path().get_ident()
            && (HOOKS.iter().any(|hook| ident == hook) || Guard::named(ident).is_some())
        {
            let second = own.mark.replace(ident.clone());
            let read = match Guard::named(ident) {
                Some(Guard::Authorize) => guard::read_recheck(attribute).map(|recheck| {
                    own.recheck = recheck;
                }),
                _ => attribute.meta.require_path_only().map(drop),
            };
            read.and(match second {
                Some(_) => Err(Error::new(
                    ident.span(),
                    "one function is one hook: write two that call a third",
                )),
                None => Ok(()),
            })
        } else if let Some(taken) = own.clock.take(attribute) {
            taken
        } else {
            if attribute.path().is_ident("cfg") {
                own.cfg.push(attribute.clone());
            }
            return true;
        };
        if let Err(new) = result {
            match &mut error {
                Some(error) => error.combine(new),
                None => error = Some(new),
            }
        }
        false
    });
    if let (Some(mark), Some(_)) = (&own.mark, own.method) {
        error.get_or_insert_with(|| {
            let what = match Guard::named(mark) {
                Some(_) => "guard",
                None => "hook",
            };
            Error::new(
                mark.span(),
                format!("a {what} is no method: callers cannot invoke it"),
            )
        });
    }
    error.map_or(Ok(own), Err)
}

fn check_signature(signature: &syn::Signature) -> Result<()> {
    if let Some(asyncness) = &signature.asyncness {
        return Err(Error::new(
            asyncness.span(),
            "methods of an actor are plain functions: remove `async` (the host suspends the \
             actor wherever a call of the SDK waits)",
        ));
    }
    if let Some(unsafety) = &signature.unsafety {
        return Err(Error::new(
            unsafety.span(),
            "clients call this: it cannot be `unsafe`",
        ));
    }
    if let Some(generic) = signature.generics.params.first() {
        return Err(Error::new_spanned(
            generic,
            "clients call this with JSON, so it cannot be generic: name the types",
        ));
    }
    if let ReturnType::Type(_, ty) = &signature.output {
        check_owned(ty, "a result leaves as JSON: return an owned value")?;
    }
    Ok(())
}

fn receiver_access(receiver: &Receiver) -> Result<Access> {
    let (reference, mutable) = match (&receiver.reference, &*receiver.ty) {
        (Some(_), _) => (true, receiver.mutability.is_some()),
        (None, Type::Reference(ty)) => (true, ty.mutability.is_some()),
        (None, _) => (false, false),
    };
    match (reference, mutable) {
        (true, true) => Ok(Access::Write),
        (true, false) => Ok(Access::Read),
        (false, _) => Err(Error::new_spanned(
            receiver,
            "the state stays with the actor: take `&mut self` to change it, `&self` to read it",
        )),
    }
}

/// `Some(mutable)` for a reference to `Tracked<…>`.
fn tracked(ty: &Type) -> Option<bool> {
    reference_to(ty, "Tracked")
}

/// `Some(mutable)` for a reference to `Live<…>`.
fn live(ty: &Type) -> Option<bool> {
    reference_to(ty, "Live")
}

pub(crate) fn reference_to(ty: &Type, name: &str) -> Option<bool> {
    match ty {
        Type::Reference(reference) if is_named(&reference.elem, name) => {
            Some(reference.mutability.is_some())
        }
        _ => None,
    }
}

fn is_named(ty: &Type, name: &str) -> bool {
    matches!(ty, Type::Path(path)
        if path.path.segments.last().is_some_and(|last| last.ident == name))
}

fn read_parameter(parameter: &mut syn::PatType) -> Result<Parameter> {
    if let Some(mutable) = reference_to(&parameter.ty, "Context") {
        return Ok(Parameter::Context { mutable });
    }
    if is_named(&parameter.ty, "Context") {
        return Err(Error::new_spanned(
            &parameter.ty,
            "take the context by reference: `&mut Context<Self>`",
        ));
    }
    for state in ["Tracked", "Live"] {
        if reference_to(&parameter.ty, state).is_some() || is_named(&parameter.ty, state) {
            return Err(Error::new_spanned(
                &parameter.ty,
                format!(
                    "`state: &mut {state}<Self>` is the first parameter, in the place of `self`"
                ),
            ));
        }
    }
    check_owned(
        &parameter.ty,
        "parameters are decoded from JSON and owned: take `String`, `Vec<T>` or a type of \
         your own",
    )?;
    let Pat::Ident(pattern) = &*parameter.pat else {
        return Err(Error::new_spanned(
            &parameter.pat,
            "a parameter needs a name: it is the name of a member of the input",
        ));
    };
    let ident = pattern.ident.clone();
    let ty = (*parameter.ty).clone();
    let attributes = take_field_attributes(&mut parameter.attrs);
    if ident == "input" {
        return match attributes.first() {
            None => Ok(Parameter::Whole { ty }),
            Some(attribute) => Err(Error::new_spanned(
                attribute,
                "`input` is the whole input: put this on its type",
            )),
        };
    }
    Ok(Parameter::Member(Member {
        ident,
        ty,
        attributes,
    }))
}

/// Takes from a parameter what belongs on a field.
fn take_field_attributes(attributes: &mut Vec<Attribute>) -> Vec<Attribute> {
    let (field, rest) = attributes.drain(..).partition(|attribute| {
        ["doc", "serde", "schemars"]
            .iter()
            .any(|name| attribute.path().is_ident(name))
    });
    *attributes = rest;
    field
}

fn check_owned(ty: &Type, message: &str) -> Result<()> {
    match ty {
        Type::Reference(_) | Type::ImplTrait(_) => Err(Error::new_spanned(ty, message)),
        _ => Ok(()),
    }
}

fn check_parameters(parameters: &[Parameter], span: Span) -> Result<()> {
    let count = |wanted: fn(&Parameter) -> bool| parameters.iter().filter(|p| wanted(p)).count();
    if count(|p| matches!(p, Parameter::Context { .. })) > 1 {
        return Err(Error::new(span, "one context is enough"));
    }
    if count(|p| matches!(p, Parameter::Asked)) > 1 {
        return Err(Error::new(span, "one of its parameters is enough"));
    }
    if count(|p| matches!(p, Parameter::Given { .. })) > 1 {
        return Err(Error::new(
            span,
            "`#[before]` returns one value: one parameter takes it",
        ));
    }
    let whole = count(|p| matches!(p, Parameter::Whole { .. }));
    if whole > 0 && count(|p| matches!(p, Parameter::Member(_))) > 0 {
        return Err(Error::new(
            span,
            "`input` is the whole input: make the other parameters members of its type, or \
             give `input` another name",
        ));
    }
    Ok(())
}

/// The text of the doc comments among these attributes.
pub(crate) fn description(attributes: &[Attribute]) -> Option<String> {
    let mut lines = Vec::new();
    for attribute in attributes {
        if let Meta::NameValue(meta) = &attribute.meta
            && meta.path.is_ident("doc")
            && let Some(text) = literal(&meta.value)
        {
            for line in text.value().split('\n') {
                lines.push(line.strip_prefix(' ').unwrap_or(line).trim_end().to_owned());
            }
        }
    }
    let text = lines.join("\n").trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// The text of an expression that is nothing else, also as the argument of another macro.
fn literal(value: &Expr) -> Option<&LitStr> {
    match value {
        Expr::Lit(ExprLit {
            lit: Lit::Str(text),
            ..
        }) => Some(text),
        Expr::Group(group) => literal(&group.expr),
        _ => None,
    }
}

/// Replaces `Self`, which means something else outside the `impl` block.
struct WithoutSelf<'a>(&'a Type);

impl VisitMut for WithoutSelf<'_> {
    fn visit_type_mut(&mut self, ty: &mut Type) {
        if let Type::Path(path) = ty
            && path.qself.is_none()
            && path.path.is_ident("Self")
        {
            *ty = self.0.clone();
            return;
        }
        visit_mut::visit_type_mut(self, ty);
    }
}

impl Method {
    /// The type that the members of the input are decoded into, if there are any.
    pub(crate) fn input_type(&self, actor: &Type) -> Option<TokenStream> {
        let members = self.members();
        if members.is_empty() {
            return None;
        }
        let fields = members.iter().map(|member| {
            let Member {
                ident,
                ty,
                attributes,
            } = member;
            let mut ty = ty.clone();
            WithoutSelf(actor).visit_type_mut(&mut ty);
            quote! {
                #(#attributes)*
                #ident: #ty
            }
        });
        let (name, cfg) = (self.input_ident(), &self.cfg);
        Some(quote! {
            #(#cfg)*
            #[derive(
                ::tidegate_sdk::__private::serde::Deserialize,
                ::tidegate_sdk::__private::schemars::JsonSchema,
            )]
            #[serde(
                crate = "::tidegate_sdk::__private::serde",
                rename_all = "camelCase",
                expecting = "an object of parameters",
            )]
            #[schemars(crate = "::tidegate_sdk::__private::schemars")]
            struct #name { #(#fields),* }
        })
    }

    fn input_ident(&self) -> Ident {
        format_ident!("{}Input", syn::ext::IdentExt::unraw(&self.ident))
    }

    fn members(&self) -> Vec<&Member> {
        self.parameters
            .iter()
            .filter_map(|parameter| match parameter {
                Parameter::Member(member) => Some(member),
                _ => None,
            })
            .collect()
    }

    fn whole(&self) -> Option<&Type> {
        self.parameters
            .iter()
            .find_map(|parameter| match parameter {
                Parameter::Whole { ty } => Some(ty),
                _ => None,
            })
    }

    /// The element of the table of methods or hooks.
    pub(crate) fn entry(&self, before: Option<&Self>) -> TokenStream {
        let cfg = &self.cfg;
        match &self.role {
            Role::Hook { name } => {
                let variant = format_ident!(
                    "{}",
                    match name.to_string().as_str() {
                        "activate" => "Activate",
                        "deactivate" => "Deactivate",
                        "connect" => "Connect",
                        _ => "Disconnect",
                    },
                    span = name.span()
                );
                let run = self.run(None);
                quote! { #(#cfg)* (::tidegate_sdk::__private::Hook::#variant, #run) }
            }
            Role::Method { name } => {
                let description = match &self.description {
                    Some(text) => quote!(::core::option::Option::Some(#text)),
                    None => quote!(::core::option::Option::None),
                };
                let (input, output) = (self.input_schema(), self.output_schema());
                let run = self.run(before.map(|before| self.guarded_by(before, name)));
                let clock = self.clock.fields();
                quote! {
                    #(#cfg)*
                    ::tidegate_sdk::__private::Method {
                        name: #name,
                        description: #description,
                        input: #input,
                        output: #output,
                        #clock
                        run: #run,
                    }
                }
            }
            Role::Guard(_) => self.look(),
        }
    }

    fn input_schema(&self) -> TokenStream {
        if let Some(ty) = self.whole() {
            let schema = quote_spanned!(ty.span()=>
                ::tidegate_sdk::__private::schema::of_input::<#ty>);
            return quote!(::core::option::Option::Some(#schema));
        }
        if self.members().is_empty() {
            return quote!(::core::option::Option::None);
        }
        let ty = self.input_ident();
        quote! {
            ::core::option::Option::Some(
                ::tidegate_sdk::__private::schema::of_parameters::<#ty>
            )
        }
    }

    fn output_schema(&self) -> TokenStream {
        let ty = match &self.output {
            ReturnType::Default => quote!(()),
            ReturnType::Type(_, ty) => quote!(#ty),
        };
        quote_spanned! {self.output_span()=>
            || ::tidegate_sdk::__private::Returns::<#ty>::new().split().schema()
        }
    }

    fn output_span(&self) -> Span {
        match &self.output {
            ReturnType::Default => self.span,
            ReturnType::Type(_, ty) => ty.span(),
        }
    }

    /// How the dispatch calls the function, after what runs ahead of it.
    fn run(&self, ahead: Option<TokenStream>) -> TokenStream {
        let function = &self.ident;
        let variant = match self.access {
            Access::Read => quote!(Read),
            Access::Write => quote!(Write),
            Access::Tracked { .. } => quote!(Tracked),
            Access::Live => quote!(Live),
        };
        let state = match self.access {
            Access::Tracked { mutable: false } => quote!(&*state),
            Access::Live => quote!(live),
            _ => quote!(state),
        };
        let [input, given] = ["input", "given"].map(internal);
        // Spelt where its type stands, so that errors stand there.
        let returned = Ident::new("returned", self.output_span());
        let mut arguments = Vec::new();
        let mut member_idents = Vec::new();
        for parameter in &self.parameters {
            arguments.push(match parameter {
                Parameter::Context { mutable: true } => quote!(ctx),
                Parameter::Context { mutable: false } => quote!(&*ctx),
                Parameter::Asked => continue,
                Parameter::Given { ty, by_reference } => {
                    let passed = if *by_reference {
                        quote_spanned!(ty.span()=> passed::<#ty, _>(&#given))
                    } else {
                        quote_spanned!(ty.span()=> passed_whole::<#ty, _>(#given))
                    };
                    quote!(::tidegate_sdk::__private::#passed)
                }
                Parameter::Whole { ty } => quote_spanned!(ty.span()=> #input.whole::<#ty>()?),
                Parameter::Member(Member { ident, .. }) => {
                    member_idents.push(ident);
                    quote!(decoded.#ident)
                }
            });
        }
        let decode = (!member_idents.is_empty()).then(|| {
            let ty = self.input_ident();
            quote!(let decoded: #ty = input.parameters()?;)
        });
        let finish = match self.role {
            Role::Method { .. } => quote_spanned! {self.output_span()=>
                ::tidegate_sdk::__private::Returned(#returned.split()?).encode()
            },
            _ => quote_spanned! {self.output_span()=>
                let nothing: () = #returned.split()?;
                ::tidegate_sdk::__private::Returned(nothing).encode()
            },
        };
        let taken = match self.access {
            Access::Live => quote!(|live, input|),
            _ => quote!(|state, ctx, input|),
        };
        let parts = (self.access == Access::Live && ahead.is_some())
            .then(|| quote!(let (state, ctx) = live.parts();));
        quote! {
            ::tidegate_sdk::__private::Run::#variant(#taken {
                #parts
                #ahead
                #decode
                let #returned = ::tidegate_sdk::__private::Returned(
                    Self::#function(#state, #(#arguments),*)
                );
                #finish
            })
        }
    }
}
