//! A method as timers and other actors name it: the function of the actor's proxy
//! (`tidegate_sdk::proxy`) that takes the same parameters and makes the input of them.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::visit_mut::VisitMut;
use syn::{Attribute, GenericArgument, Ident, PathArguments, ReturnType, Type};

use super::{Member, Method, Parameter, Role, WithoutSelf};

/// The parts of serde's attribute that name functions for one type.
const NEEDS_THE_TYPE: [&str; 4] = ["with", "serialize_with", "skip_serializing_if", "getter"];

impl Method {
    /// The type from which the members of the input are encoded, if there are any. It is
    /// generic, so that only a method that is named this way needs members that `Serialize`.
    pub(crate) fn sent_type(&self, actor: &Type) -> Option<TokenStream> {
        let members = self.members();
        if members.is_empty() || !matches!(self.role, Role::Method { .. }) {
            return None;
        }
        let mut generics = Vec::new();
        let fields = members.iter().enumerate().map(|(i, member)| {
            let Member {
                ident, attributes, ..
            } = member;
            let serde = attributes
                .iter()
                .filter(|attribute| attribute.path().is_ident("serde"));
            let ty = match generic(i, member) {
                Some(generic) => {
                    generics.push(generic.clone());
                    quote!(#generic)
                }
                None => owned(&member.ty, actor),
            };
            quote!(#(#serde)* #ident: #ty)
        });
        let fields: Vec<TokenStream> = fields.collect();
        let (name, cfg) = (self.sent_ident(), &self.cfg);
        Some(quote! {
            #(#cfg)*
            #[derive(::tidegate_sdk::__private::serde::Serialize)]
            #[serde(crate = "::tidegate_sdk::__private::serde", rename_all = "camelCase")]
            pub struct #name<#(#generics),*> { #(#fields),* }
        })
    }

    fn sent_ident(&self) -> Ident {
        format_ident!("{}Sent", syn::ext::IdentExt::unraw(&self.ident))
    }

    /// The function of the proxy.
    pub(crate) fn named(&self, actor: &Type) -> Option<TokenStream> {
        if !matches!(self.role, Role::Method { .. }) {
            return None;
        }
        let Role::Method { name } = &self.role else {
            return None;
        };
        let (cfg, function) = (&self.cfg, &self.ident);
        let doc = self.description.as_ref().map(|text| quote!(#[doc = #text]));
        let members = self.members();
        let (parameters, carried, made) = if let Some(ty) = self.whole() {
            let ty = owned(ty, actor);
            (quote!(input: #ty), Some(ty), quote!(input))
        } else if members.is_empty() {
            (quote!(), None, quote!())
        } else {
            let sent = self.sent_ident();
            let idents = members.iter().map(|member| &member.ident);
            let types: Vec<TokenStream> = members
                .iter()
                .map(|member| owned(&member.ty, actor))
                .collect();
            let generics = members
                .iter()
                .enumerate()
                .zip(&types)
                .filter(|((i, member), _)| generic(*i, member).is_some())
                .map(|(_, ty)| ty);
            let parameters = self
                .parameters
                .iter()
                .filter_map(|parameter| match parameter {
                    Parameter::Member(Member { ident, ty, .. }) => {
                        let ty = owned(ty, actor);
                        Some(quote!(#ident: #ty))
                    }
                    _ => None,
                });
            (
                quote!(#(#parameters),*),
                Some(quote!(#sent<#(#generics),*>)),
                quote!(#sent { #(#idents),* }),
            )
        };
        let (value, declared) = self.value(actor);
        let (bound, input) = match carried {
            Some(carried) => (
                quote_spanned!(self.span=> + ::tidegate_sdk::__private::Carries<#carried>),
                quote! {
                    <__Way as ::tidegate_sdk::__private::Carries<#carried>>::encode(&#made)
                },
            ),
            None => (
                quote!(),
                quote!(::core::result::Result::Ok(::core::option::Option::None)),
            ),
        };
        let alias = format!(
            "`{function}` returns another name for `Result`: write `Result<T, E>` in its \
             signature, so that callers know the `T`"
        );
        // A guess from the name of the type is checked only where it matters.
        let check = (!is_result(&declared)).then(|| {
            quote! {
                const {
                    ::core::assert!(
                        !(<__Way as ::tidegate_sdk::__private::Way<#value>>::READS
                            && ::tidegate_sdk::__private::Returns::<#value>::IS_RESULT),
                        #alias
                    );
                }
            }
        });
        Some(quote! {
            #(#cfg)*
            #doc
            pub fn #function(
                self,
                #parameters
            ) -> <__Way as ::tidegate_sdk::__private::Way<#value>>::Returned
            where
                __Way: ::tidegate_sdk::__private::Way<#value> #bound,
            {
                #check
                let encoded = #input;
                ::tidegate_sdk::__private::Way::<#value>::invoke(self.0, #name, encoded)
            }
        })
    }

    /// The type of the value that it returns, and the type that it declares.
    fn value(&self, actor: &Type) -> (TokenStream, Type) {
        let declared = match &self.output {
            ReturnType::Default => syn::parse_quote!(()),
            ReturnType::Type(_, ty) => {
                let mut ty = (**ty).clone();
                WithoutSelf(actor).visit_type_mut(&mut ty);
                ty
            }
        };
        let value = result_value(&declared).unwrap_or(&declared).clone();
        (quote_spanned!(declared.span()=> #value), declared)
    }
}

fn owned(ty: &Type, actor: &Type) -> TokenStream {
    let mut ty = ty.clone();
    WithoutSelf(actor).visit_type_mut(&mut ty);
    quote!(#ty)
}

/// The generic parameter in the place of a member's type.
fn generic(index: usize, member: &Member) -> Option<Ident> {
    (!member.attributes.iter().any(names_functions)).then(|| format_ident!("__T{index}"))
}

fn names_functions(attribute: &Attribute) -> bool {
    let mut found = false;
    if attribute.path().is_ident("serde") {
        // Whatever else stands there is serde's to judge.
        let _ = attribute.parse_nested_meta(|meta| {
            found |= NEEDS_THE_TYPE.iter().any(|name| meta.path.is_ident(name));
            if meta.input.peek(syn::Token![=]) {
                meta.value()?.parse::<syn::Expr>()?;
            }
            Ok(())
        });
    }
    found
}

fn is_result(ty: &Type) -> bool {
    result_value(ty).is_some()
}

/// The `T` of a `Result<T, …>`.
fn result_value(ty: &Type) -> Option<&Type> {
    let Type::Path(path) = ty else {
        return None;
    };
    let last = path.path.segments.last()?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else {
        return None;
    };
    if last.ident != "Result" {
        return None;
    }
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    })
}
