# Names for the commands of tools/vh.py, which also work without make: python3 tools/vh.py help
VH = python3 tools/vh.py
LAB = $(if $(NAME),lab_name=$(NAME)) $(if $(PROFILE),lab_profile=$(PROFILE)) $(if $(IMAGE),lab_image=$(IMAGE))

.DEFAULT_GOAL := help
.PHONY: help demo test test-all unit lint sanity audit explain bench lab-up lab-down clean

help demo test test-all unit lint sanity audit bench clean:
	@$(VH) $@

explain:
	@$(VH) $@ '$(FILE)' $(if $(OUT),--out '$(OUT)') $(if $(KERNEL),--kernel '$(KERNEL)')

lab-up lab-down:
	@$(VH) $@ $(LAB)
