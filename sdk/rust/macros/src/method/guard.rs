//! Functions that decide: `#[before]` about calls, `#[authorize]` and `#[project]` about
//! subscribers. How they are read, how they are called, and how what `#[before]` returns
//! gets to the methods that ask for it.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, FnArg, Ident, LitStr, Meta, Result, Type};

use super::{
    Access, Method, OwnAttributes, Parameter, Role, live, receiver_access, reference_to,
    take_field_attributes, tracked,
};

/// A function that decides.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Guard {
    /// Who may call.
    Before,
    /// Who may subscribe.
    Authorize,
    /// Who sees what of the state.
    Project,
}

impl Guard {
    pub(super) fn named(ident: &Ident) -> Option<Self> {
        [Self::Before, Self::Authorize, Self::Project]
            .into_iter()
            .find(|guard| ident == guard.name())
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::Authorize => "authorize",
            Self::Project => "project",
        }
    }

    /// The type that tells it about whom or what it decides.
    fn asks_about(self) -> &'static str {
        match self {
            Self::Before => "Call",
            Self::Authorize => "Subscriber",
            Self::Project => "Viewer",
        }
    }

    pub(super) fn parameters(self) -> &'static str {
        match self {
            Self::Before => {
                "`#[before]` takes the state, `ctx: &Context<Self>` and `call: &Call<'_>`"
            }
            Self::Authorize => {
                "`#[authorize]` takes the state and `who: &Subscriber`; it runs beside the \
                 actor's turns and has no context"
            }
            Self::Project => {
                "`#[project]` takes the state and `who: &Viewer`; it runs beside the actor's \
                 turns and has no context"
            }
        }
    }
}

/// Reads when `#[authorize]` is asked again, if it says so: `#[authorize(recheck = "later")]`.
pub(super) fn read_recheck(attribute: &syn::Attribute) -> Result<Option<&'static str>> {
    if matches!(attribute.meta, Meta::Path(_)) {
        return Ok(None);
    }
    let mut recheck = None;
    attribute.parse_nested_meta(|meta| {
        if !meta.path.is_ident("recheck") {
            return Err(meta.error("expected `recheck = \"later\"`"));
        }
        let when: LitStr = meta.value()?.parse()?;
        recheck = Some(match when.value().as_str() {
            "each-commit" => "each-commit",
            "later" => "later",
            _ => return Err(Error::new(when.span(), "expected `each-commit` or `later`")),
        });
        Ok(())
    })?;
    Ok(recheck)
}

/// Takes `#[before]` from the parameters: for each of them, where it was marked so.
pub(super) fn take_given(signature: &mut syn::Signature) -> Vec<Option<Span>> {
    signature
        .inputs
        .iter_mut()
        .map(|input| {
            let attributes = match input {
                FnArg::Receiver(receiver) => &mut receiver.attrs,
                FnArg::Typed(parameter) => &mut parameter.attrs,
            };
            let mut span = None;
            attributes.retain(|attribute| {
                let is_mark = attribute.path().is_ident(Guard::Before.name());
                if is_mark {
                    span = Some(attribute.path().span());
                }
                !is_mark
            });
            span
        })
        .collect()
}

/// What holds of every guard, whatever it decides.
pub(super) fn check(guard: Guard, signature: &syn::Signature, own: &OwnAttributes) -> Result<()> {
    if let Some(cfg) = own.cfg.first() {
        return Err(Error::new_spanned(
            cfg,
            "a guard that may be absent guards nothing: put the condition inside of it",
        ));
    }
    let changes = match signature.inputs.first() {
        Some(FnArg::Receiver(receiver)) => receiver_access(receiver)? == Access::Write,
        Some(FnArg::Typed(first)) => tracked(&first.ty) == Some(true) || live(&first.ty).is_some(),
        None => false,
    };
    if changes {
        return Err(Error::new_spanned(
            &signature.inputs[0],
            format!(
                "`#[{}]` decides and changes nothing: take `&self` or `state: &Tracked<Self>`",
                guard.name()
            ),
        ));
    }
    Ok(())
}

/// A parameter of a guard.
pub(super) fn read_parameter(guard: Guard, parameter: &syn::PatType) -> Result<Parameter> {
    if reference_to(&parameter.ty, guard.asks_about()) == Some(false) {
        return Ok(Parameter::Asked);
    }
    match reference_to(&parameter.ty, "Context") {
        Some(mutable) if guard == Guard::Before => Ok(Parameter::Context { mutable }),
        _ => Err(Error::new_spanned(parameter, guard.parameters())),
    }
}

/// A parameter for what `#[before]` has returned.
pub(super) fn read_given(parameter: &mut syn::PatType) -> Result<Parameter> {
    if let Some(attribute) = take_field_attributes(&mut parameter.attrs)
        .iter()
        .find(|attribute| !attribute.path().is_ident("doc"))
    {
        return Err(Error::new_spanned(
            attribute,
            "what `#[before]` returns is no part of the input",
        ));
    }
    match &*parameter.ty {
        Type::Reference(reference) if reference.mutability.is_some() => Err(Error::new_spanned(
            reference,
            "take what `#[before]` returns as `&T` or `T`",
        )),
        Type::Reference(reference) => Ok(Parameter::Given {
            ty: (*reference.elem).clone(),
            by_reference: true,
        }),
        ty => Ok(Parameter::Given {
            ty: ty.clone(),
            by_reference: false,
        }),
    }
}

impl Method {
    /// When the host asks this guard again about those who subscribe, where it says so.
    pub(crate) fn recheck(&self) -> Option<&'static str> {
        self.recheck
    }

    /// Whether it asks for what `#[before]` returns.
    pub(crate) fn wants_given(&self) -> bool {
        self.parameters
            .iter()
            .any(|parameter| matches!(parameter, Parameter::Given { .. }))
    }

    /// How the host's questions about subscribers are answered.
    pub(super) fn look(&self) -> TokenStream {
        let function = &self.ident;
        let variant = match self.access {
            Access::Tracked { .. } => quote!(Tracked),
            _ => quote!(Read),
        };
        let who = self.parameters.iter().map(|_| quote!(who));
        let decided = match self.role {
            Role::Guard(Guard::Project) => quote!(::tidegate_sdk::View),
            _ => quote!(()),
        };
        // Spelt where its type stands, so that errors stand there.
        let returned = Ident::new("returned", self.output_span());
        let decide = quote_spanned! {self.output_span()=>
            let decided: #decided = #returned.split()?;
            ::core::result::Result::Ok(decided)
        };
        quote! {
            ::tidegate_sdk::__private::Look::#variant(|state, who| {
                let #returned = ::tidegate_sdk::__private::Returned(
                    Self::#function(state, #(#who),*)
                );
                #decide
            })
        }
    }

    /// Runs `#[before]` ahead of this method, which may want what it returns.
    pub(super) fn guarded_by(&self, before: &Self, name: &str) -> TokenStream {
        let function = &before.ident;
        let arguments = before.parameters.iter().map(|parameter| match parameter {
            Parameter::Context { mutable: true } => quote!(&mut *ctx),
            Parameter::Context { mutable: false } => quote!(&*ctx),
            _ => quote!(&call),
        });
        let decide = |state: TokenStream| {
            quote! {
                ::tidegate_sdk::__private::Returned(
                    Self::#function(#state, #(#arguments),*)
                ).split()
            }
        };
        let is_tracked = |access| matches!(access, Access::Tracked { .. });
        let decision = match (is_tracked(before.access), is_tracked(self.access)) {
            (false, false) | (true, true) => decide(quote!(&*state)),
            (true, false) => decide(quote!(&::tidegate_sdk::__private::tracked(&*ctx))),
            (false, true) => {
                let decision = decide(quote!(whole.state()));
                quote! {{
                    let whole = ::tidegate_sdk::__private::Whole::load(&*ctx)?;
                    let decision = #decision;
                    whole.keep();
                    decision
                }}
            }
        };
        let call = quote!(let call = ::tidegate_sdk::__private::Call::new(#name, input););
        if self.wants_given() {
            quote! {
                #call
                let given = match #decision {
                    ::core::result::Result::Ok(given) => given,
                    ::core::result::Result::Err(failure) => {
                        return ::tidegate_sdk::__private::refuse(ctx, failure);
                    }
                };
            }
        } else {
            quote! {
                if ::tidegate_sdk::__private::is_called(&*ctx) {
                    #call
                    if let ::core::result::Result::Err(failure) = #decision {
                        return ::tidegate_sdk::__private::refuse(ctx, failure);
                    }
                }
            }
        }
    }
}
