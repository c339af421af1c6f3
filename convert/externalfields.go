package convert

// remoteFields are those of a remoteRef.
func remoteFields(path string) row {
	var all row
	for _, name := range []string{"key", "metadataPolicy", "property", "version", "conversionStrategy", "decodingStrategy"} {
		all.paths = append(all.paths, path+"."+name)
	}
	return all
}

// externalSecretFields are those of an ExternalSecret of any version.
func externalSecretFields() fields {
	return fieldsOf(
		read("spec.secretStoreRef.name", "spec.secretStoreRef.kind", "spec.data[].secretKey", "spec.data[].sourceRef", "spec.refreshPolicy", "spec.refreshInterval"),
		remoteFields("spec.data[].remoteRef"), remoteFields("spec.dataFrom[].extract"), remoteFields("spec.dataFrom[]"),
		read("spec.dataFrom[].find", "spec.dataFrom[].rewrite", "spec.dataFrom[].sourceRef"),
		seen("keymount writes a value with null bytes as it is", "", "spec.data[].remoteRef.nullBytePolicy", "spec.dataFrom[].extract.nullBytePolicy"),
		read("spec.target.name", "spec.target.creationPolicy", "spec.target.immutable"),
		idle("the files of a pod end with it, and the driver removes its Secret with the last pod", "spec.target.deletionPolicy"),
		gone("the driver makes Secrets and no other objects", "mount the files, or keep the operator for it", "spec.target.manifest"),
		read("spec.target.template.type", "spec.target.template.engineVersion", "spec.target.template.mergePolicy", "spec.target.template.data", "spec.target.template.templateFrom",
			"spec.target.template.metadata.labels", "spec.target.template.metadata.annotations"),
		gone("a Secret of the driver has no finalizers of one's own", "", "spec.target.template.metadata.finalizers"),
	)
}

// externalStoreFields are those of a SecretStore or ClusterSecretStore.
func externalStoreFields() fields {
	const settings = "spec.provider.vault."
	return fieldsOf(
		read(settings+"server", settings+"path", settings+"version", settings+"namespace", settings+"caBundle", settings+"caProvider", settings+"tls", settings+"headers"),
		read(settings+"auth.namespace", settings+"auth.tokenSecretRef", settings+"auth.appRole", settings+"auth.ldap", settings+"auth.cert", settings+"auth.iam",
			settings+"auth.userPass", settings+"auth.gcp"),
		read(settings+"auth.kubernetes.mountPath", settings+"auth.kubernetes.role", settings+"auth.kubernetes.serviceAccountRef"),
		read(settings+"auth.jwt.path", settings+"auth.jwt.role", settings+"auth.jwt.kubernetesServiceAccountToken.serviceAccountRef", settings+"auth.jwt.kubernetesServiceAccountToken.audiences"),
		idle("the driver sets the time of its tokens", settings+"auth.jwt.kubernetesServiceAccountToken.expirationSeconds"),
		gone("keymount logs in as each pod with the pod's own token, and not with one of a Secret", "bind the role in Vault to the service accounts of the pods",
			settings+"auth.kubernetes.secretRef", settings+"auth.jwt.secretRef"),
		gone("keymount asks a replica without the headers for it", "name the address of the active node", settings+"readYourWrites", settings+"forwardInconsistent"),
		idle("keymount writes no secrets", settings+"checkAndSet"),
		seen("keymount has a deadline for a mount in place of a number of tries", "", "spec.retrySettings"),
		seen("the rules name the namespaces of the classes", "see that they are those that may use the store", "spec.conditions"),
		idle("it chooses between operators, or is the pace of the store's own check", "spec.controller", "spec.refreshInterval"),
	)
}
