// Calico names this module in its go.mod by a relative path. Nothing of it is used here, so an empty one does.
module github.com/projectcalico/calico/lib/httpmachinery

go 1.24
