// Empty, because Calico's module requires it but has not published it; no program that is built here imports it.
module github.com/projectcalico/calico/lib/httpmachinery

go 1.26
