// Empty on purpose: Calico's module requires it and publishes no version of it; no program built here imports it.
module github.com/projectcalico/calico/lib/httpmachinery

go 1.26
