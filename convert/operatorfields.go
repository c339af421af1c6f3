package convert

// operatorSecretFields are those of all secrets of the operator.
func operatorSecretFields(rows ...row) fields {
	const destination, transformation = "spec.destination.", "spec.destination.transformation."
	return fieldsOf(append(rows,
		read("spec.vaultAuthRef", "spec.namespace", "spec.mount", "spec.rolloutRestartTargets"),
		read(destination+"name", destination+"create", destination+"type", destination+"labels", destination+"annotations"),
		seen("the driver never takes over a Secret that is not its own", "remove the operator's Secret before a pod mounts the class", destination+"overwrite"),
		read(transformation+"includes", transformation+"excludes", transformation+"excludeRaw", transformation+"transformationRefs[].name", transformation+"transformationRefs[].namespace",
			transformation+"transformationRefs[].templateRefs", transformation+"templates.*.text"),
		idle("it is for errors alone: the map has the name", transformation+"templates.*.name"),
		gone("its filters have no counterpart from there", "write includes and excludes into the secret before converting", transformation+"transformationRefs[].ignoreIncludes",
			transformation+"transformationRefs[].ignoreExcludes"),
	)...)
}

func staticFields() fields {
	return operatorSecretFields(
		read("spec.path", "spec.type", "spec.version"),
		idle("the store's refresh is the pace", "spec.refreshAfter"),
		idle("it finds changes of the operator's Secret", "spec.hmacSecretData"),
		seen("keymount asks for changes, and hears of none", "see refresh of the store", "spec.syncConfig"),
	)
}

func dynamicFields() fields {
	return operatorSecretFields(
		read("spec.path", "spec.params", "spec.requestHTTPMethod"),
		idle("credentials are renewed and replaced before their end, and revoked with their pod", "spec.renewalPercent", "spec.revoke", "spec.refreshAfter"),
		idle("credentials of static roles are read as any", "spec.allowStaticCreds"),
	)
}

func pkiFields() fields {
	return operatorSecretFields(
		read("spec.role", "spec.issuerRef", "spec.commonName", "spec.altNames", "spec.ipSans", "spec.uriSans", "spec.otherSans", "spec.userIDs", "spec.ttl", "spec.notAfter",
			"spec.format", "spec.privateKeyFormat", "spec.excludeCNFromSans"),
		idle("certificates are replaced before their end", "spec.expiryOffset"),
		gone("keymount revokes no certificate", "let its ttl be short", "spec.revoke"),
		seen("the driver removes its Secret with the last pod", "", "spec.clear"),
	)
}

// vaultAuthFields are those of a VaultAuth or VaultAuthGlobal.
func vaultAuthFields() fields {
	rows := []row{
		read("spec.vaultConnectionRef", "spec.vaultAuthGlobalRef.name", "spec.vaultAuthGlobalRef.namespace", "spec.namespace", "spec.method", "spec.mount", "spec.allowedNamespaces"),
		read("spec.defaultVaultNamespace", "spec.defaultAuthMethod", "spec.defaultMount"),
		gone("keymount sends none of its own", "", "spec.headers", "spec.params", "spec.defaultHeaders", "spec.defaultParams"),
		idle("it is about headers and params", "spec.vaultAuthGlobalRef.mergeStrategy"),
		idle("a VaultAuthGlobal without a name is the one called default", "spec.vaultAuthGlobalRef.allowDefault"),
		idle("keymount keeps no leases in the cluster", "spec.storageEncryption"),
	}
	for _, method := range []string{"kubernetes", "jwt"} {
		spec := "spec." + method + "."
		rows = append(rows,
			read(spec+"role", spec+"serviceAccount", spec+"audiences", spec+"namespace", spec+"mount"),
			idle("the driver sets the time of its tokens", spec+"tokenExpirationSeconds"),
			gone("keymount sends none of its own", "", spec+"headers", spec+"params"),
			gone("keymount logs in as each pod with the pod's own token, and not with one of a Secret", "bind the role in Vault to the service accounts of the pods", spec+"secretRef"))
	}
	return fieldsOf(append(rows, read("spec.appRole", "spec.aws", "spec.gcp"))...)
}

func vaultConnectionFields() fields {
	return fieldsOf(
		read("spec.address", "spec.tlsServerName", "spec.caCertSecretRef", "spec.caCertPath", "spec.skipTLSVerify", "spec.headers"),
		seen("keymount has timeouts of its own", "", "spec.timeout"),
	)
}

func transformationFields() fields {
	return fieldsOf(
		read("spec.templates.*.text", "spec.includes", "spec.excludes"),
		idle("it is for errors alone: the map has the name", "spec.templates.*.name"),
		gone("templates that others include have no counterpart", "write them into the templates that use them", "spec.sourceTemplates"),
	)
}
