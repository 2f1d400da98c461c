//! What keeps the macros right inside of other macros, where an author's tokens come from two
//! places: the other macro's text, and its arguments.
//!
//! Names of variables and lifetimes are found only by tokens of the same place, and arguments
//! stand in groups that nobody sees.

use proc_macro2::{Ident, Span};
use syn::Type;
use syn::visit_mut::{self, VisitMut};

/// A name of the macro's own within code that otherwise stands, for the errors in it, at
/// something of the author's.
pub(crate) fn internal(name: &str) -> Ident {
    Ident::new(name, Span::call_site())
}

/// Takes types out of the groups in which `$t:ty` arrives, so that they look as if the author
/// had written them here.
pub(crate) struct Ungroup;

impl VisitMut for Ungroup {
    fn visit_type_mut(&mut self, ty: &mut Type) {
        while let Type::Group(group) = ty {
            *ty = match (*group.elem).clone() {
                // `&$t` is no `&dyn A + B`.
                inner @ (Type::TraitObject(_) | Type::ImplTrait(_)) => {
                    syn::parse_quote!((#inner))
                }
                inner => inner,
            };
        }
        visit_mut::visit_type_mut(self, ty);
    }
}
