//! What takes over, what is dropped, and that each claim has one holder throughout.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use super::*;

const ACTORS: [&str; 5] = ["bell", "chat", "door", "game", "lamp"];
const COMPONENTS: [&str; 4] = ["east", "north", "south", "west"];

/// What stands for a component.
#[derive(Debug)]
struct Program(BTreeSet<Name>);

impl Claimant for Program {
    fn claims(&self) -> impl Iterator<Item = (ClaimKind, &Name)> {
        self.0.iter().map(|name| (ClaimKind::Actor, name))
    }

    fn has_claim(&self, kind: ClaimKind, name: &Name) -> bool {
        match kind {
            ClaimKind::Actor => self.0.contains(name),
        }
    }
}

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

fn program<'a>(actors: impl IntoIterator<Item = &'a str>) -> Arc<Program> {
    Arc::new(Program(actors.into_iter().map(name).collect()))
}

fn router() -> Router<(), Program> {
    Router::new(Arc::new(Metrics::default()), |_| ())
}

/// Who holds each actor type, by address.
fn holders(router: &Router<(), Program>) -> Vec<(&'static str, Option<*const Program>)> {
    let holder = |actor: &'static str| {
        let slot = router.resolve(actor);
        let holder = slot.and_then(|slot| slot.component());
        (actor, holder.map(|holder| Arc::as_ptr(&holder)))
    };
    ACTORS.into_iter().map(holder).collect()
}

fn loaded(router: &Router<(), Program>) -> Vec<(Name, *const Program)> {
    let loaded = router.components().into_iter();
    loaded
        .map(|(name, program)| (name, Arc::as_ptr(&program)))
        .collect()
}

#[test]
fn a_conflict_names_what_is_claimed_and_who_has_it() {
    let router = router();
    let (first, second) = (program(["chat", "game"]), program(["bell", "game"]));
    router.install(name("north"), first).expect("no conflict");
    let conflict = router
        .install(name("south"), second)
        .expect_err("a conflict");
    assert_eq!(
        conflict.to_string(),
        "the components `north` and `south` both serve the actor type `game`"
    );
    assert!(router.resolve("bell").is_none(), "nothing was taken over");
}

#[test]
fn a_slot_follows_who_holds_its_claim() {
    let router = router();
    let old = program(["chat"]);
    router.install(name("north"), old).expect("no conflict");
    let slot = router.resolve("chat").expect("a slot");
    let new = program(["chat"]);
    let replaced = router.install(name("north"), new.clone());
    assert!(replaced.expect("no conflict").is_some());
    assert!(Arc::ptr_eq(&slot.component().expect("a holder"), &new));
    router.remove("north").expect("it was there");
    assert!(slot.component().is_none());
    let other = program(["chat"]);
    router.install(name("south"), other).expect("no conflict");
    let again = router.resolve("chat").expect("a slot");
    assert!(Arc::ptr_eq(&slot, &again), "who held it holds it still");
}

#[test]
fn what_a_successor_no_longer_claims_is_dropped_by_it() {
    let router = router();
    let old = program(["bell", "chat", "game"]);
    router.install(name("north"), old).expect("no conflict");
    let dropped =
        |of: &str| router.dropped_by(ClaimKind::Actor, &name(of), &program(["chat", "lamp"]));
    assert_eq!(dropped("north"), [name("bell"), name("game")]);
    assert_eq!(dropped("south"), [] as [Name; 0]);
}

/// One change of the table.
#[derive(Clone, Debug)]
enum Step {
    Install(usize, BTreeSet<usize>),
    Remove(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let component = || 0..COMPONENTS.len();
    let claims = btree_set(0..ACTORS.len(), 0..4);
    let step = prop_oneof![
        3 => (component(), claims).prop_map(|(who, claims)| Step::Install(who, claims)),
        1 => component().prop_map(Step::Remove),
    ];
    vec(step, 1..40)
}

proptest! {
    #[test]
    fn each_claim_has_one_holder_and_a_failed_takeover_changes_nothing(steps in steps()) {
        let router = router();
        // What each component claims that serves, and which program it is.
        let mut expected: BTreeMap<usize, (BTreeSet<usize>, Arc<Program>)> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Install(who, claims) => {
                    let program = program(claims.iter().map(|claim| ACTORS[*claim]));
                    let mut others = expected.iter().filter(|(other, _)| **other != who);
                    let taken = others.find_map(|(other, (held, _))| {
                        Some((*other, *claims.intersection(held).next()?))
                    });
                    let before = (holders(&router), loaded(&router));
                    let installed = router.install(name(COMPONENTS[who]), program.clone());
                    if let Some((holder, claim)) = taken {
                        let conflict = installed.expect_err("a conflict");
                        prop_assert_eq!(conflict.kind, ClaimKind::Actor);
                        prop_assert_eq!(conflict.name.as_str(), ACTORS[claim]);
                        prop_assert_eq!(conflict.first, COMPONENTS[holder]);
                        prop_assert_eq!(conflict.second, COMPONENTS[who]);
                        prop_assert_eq!((holders(&router), loaded(&router)), before);
                    } else {
                        let replaced = installed.expect("no conflict");
                        let replaced = replaced.map(|replaced| Arc::as_ptr(&replaced));
                        let old = expected.insert(who, (claims, program));
                        prop_assert_eq!(replaced, old.map(|(_, old)| Arc::as_ptr(&old)));
                    }
                }
                Step::Remove(who) => {
                    let removed = router.remove(COMPONENTS[who]);
                    let removed = removed.map(|removed| Arc::as_ptr(&removed));
                    let old = expected.remove(&who);
                    prop_assert_eq!(removed, old.map(|(_, old)| Arc::as_ptr(&old)));
                }
            }
            for (place, (actor, holder)) in holders(&router).into_iter().enumerate() {
                let mut holders = expected.values().filter(|(claims, _)| claims.contains(&place));
                let expected = holders.next().map(|(_, program)| Arc::as_ptr(program));
                prop_assert!(holders.next().is_none(), "{} has two holders", actor);
                prop_assert_eq!(holder, expected);
            }
            let served = expected.iter();
            let served: Vec<_> = served
                .map(|(who, (_, program))| (name(COMPONENTS[*who]), Arc::as_ptr(program)))
                .collect();
            prop_assert_eq!(loaded(&router), served);
        }
    }
}
