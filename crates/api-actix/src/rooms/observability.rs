//! What was measured, over HTTP.

mod alerts;
mod dashboard;
mod export;
mod overview;
mod reports;
mod samples;
mod scope;
mod targets;
mod trends;
mod words;
mod write;

use paperclip::actix::web::{self, ServiceConfig};

/// This room's routes.
pub fn routes(config: &mut ServiceConfig<'_>) {
    reports::routes(config);
    targets::routes(config);
    alerts::routes(config);
    config
        .service(
            web::resource("/servers/{id}/metrics")
                .route(web::get().to(samples::sample_list))
                .route(web::post().to(samples::sample_create)),
        )
        .service(web::resource("/servers/{id}/metrics/latest").route(web::get().to(samples::sample_latest)))
        .service(web::resource("/overview").route(web::get().to(overview::overview_get)))
        .service(web::resource("/dashboard/summary").route(web::get().to(dashboard::dashboard_summary)))
        .service(web::resource("/dashboard/health").route(web::get().to(dashboard::dashboard_health)))
        .service(web::resource("/api/v1/write").route(web::post().to(write::sample_write)))
        .service(web::resource("/trends").route(web::get().to(trends::trend_get)));
}
