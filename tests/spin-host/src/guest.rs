//! What one instance of a component has: a store of its own, thrown away with its request.

use std::sync::{Arc, Weak};

use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::manifest::Component;
use crate::outbound::Outbound;
use crate::server::Server;
use crate::sqlite::Databases;

/// The data of a store.
pub(crate) struct Guest {
    pub(crate) table: ResourceTable,
    pub(crate) component: Arc<Component>,
    pub(crate) databases: Databases,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    outbound: Outbound,
}

impl Guest {
    pub(crate) fn new(
        component: Arc<Component>,
        databases: Databases,
        server: Weak<Server>,
    ) -> Guest {
        let mut wasi = WasiCtx::builder();
        wasi.envs(&component.environment);
        wasi.inherit_stdout().inherit_stderr();
        Guest {
            table: ResourceTable::new(),
            databases,
            wasi: wasi.build(),
            http: WasiHttpCtx::new(),
            outbound: Outbound {
                component: component.clone(),
                server,
            },
            component,
        }
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            hooks: &mut self.outbound,
            table: &mut self.table,
            ctx: &mut self.http,
        }
    }
}
